package wire_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/internal/wire"
)

// TestAnswersThatNoServerGives plays the server: whatever comes back is a message
// or an error, never a panic, and never taken for something else.
func TestAnswersThatNoServerGives(t *testing.T) {
	t.Parallel()
	url := plainServer(t)
	direct := func(ctx context.Context, nc *nats.Conn, name string) error {
		_, err := wire.DirectLast(ctx, nc, name, "a")
		return err
	}
	leader := func(ctx context.Context, nc *nats.Conn, name string) error {
		_, err := wire.LeaderLast(ctx, nc, name, "a")
		return err
	}
	batch := func(ctx context.Context, nc *nats.Conn, name string) error {
		_, err := wire.Batch(ctx, nc, name, "a", 1, 1, 1)
		return err
	}
	publish := func(ctx context.Context, nc *nats.Conn, name string) error {
		_, err := wire.Publish(ctx, nc, nats.NewMsg(name))
		return err
	}
	good := func(h nats.Header) nats.Header {
		out := nats.Header{
			nats.JSSequence: {"7"}, nats.JSSubject: {"a"}, nats.JSTimeStamp: {time.Now().Format(time.RFC3339Nano)},
		}
		maps.Copy(out, h)
		return out
	}
	number := func(n int) func(error) bool { return func(err error) bool { return wire.Number(err) == n } }
	is := func(target error) func(error) bool { return func(err error) bool { return errors.Is(err, target) } }
	code := func(n int) func(error) bool {
		return func(err error) bool {
			e, ok := errors.AsType[*wire.APIError](err)
			return ok && e.Code == n
		}
	}
	ok := func(err error) bool { return err == nil }

	for name, tc := range map[string]struct {
		call   func(context.Context, *nats.Conn, string) error
		header nats.Header
		body   string
		want   func(error) bool
	}{
		"DirectGood":           {direct, good(nil), "x", ok},
		"DirectEmpty":          {direct, nil, "", is(wire.ErrProtocol)},
		"DirectNoSequence":     {direct, good(nats.Header{nats.JSSequence: nil}), "", is(wire.ErrProtocol)},
		"DirectBadSequence":    {direct, good(nats.Header{nats.JSSequence: {"-1"}}), "", is(wire.ErrProtocol)},
		"DirectBadTime":        {direct, good(nats.Header{nats.JSTimeStamp: {"noon"}}), "", is(wire.ErrProtocol)},
		"DirectNotFound":       {direct, nats.Header{"Status": {"404"}}, "", is(wire.ErrNotFound)},
		"DirectBadRequest":     {direct, nats.Header{"Status": {"408"}}, "", code(408)},
		"DirectOddStatus":      {direct, nats.Header{"Status": {"odd"}}, "", is(wire.ErrProtocol)},
		"LeaderEmpty":          {leader, nil, "", is(wire.ErrProtocol)},
		"LeaderNeither":        {leader, nil, "{}", is(wire.ErrProtocol)},
		"LeaderNotJSON":        {leader, nil, "{", is(wire.ErrProtocol)},
		"LeaderError":          {leader, nil, `{"error":{"code":503,"err_code":10008}}`, number(10008)},
		"LeaderNotFound":       {leader, nil, `{"error":{"code":404,"err_code":10037}}`, is(wire.ErrNotFound)},
		"LeaderBadHeaders":     {leader, nil, `{"message":{"seq":1,"hdrs":"eA=="}}`, is(wire.ErrProtocol)},
		"BatchEnd":             {batch, nats.Header{"Status": {"204"}}, "", ok},
		"BatchTooMany":         {batch, nats.Header{"Status": {"413"}}, "", is(wire.ErrTooMany)},
		"BatchNotFound":        {batch, nats.Header{"Status": {"404"}}, "", ok},
		"BatchOddMessage":      {batch, nil, "x", is(wire.ErrProtocol)},
		"PublishEmpty":         {publish, nil, "", is(wire.ErrProtocol)},
		"PublishNoSequence":    {publish, nil, `{"stream":"s"}`, is(wire.ErrProtocol)},
		"PublishError":         {publish, nil, `{"error":{"code":400,"err_code":10164}}`, wire.IsWrongLastSequence},
		"PublishErrorAndStore": {publish, nil, `{"seq":1,"error":{"code":400,"err_code":10071}}`, number(10071)},
		"PublishGood":          {publish, nil, `{"stream":"s","seq":1}`, ok},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nc := natstest.Conn(t, url)
			stream := natstest.Name(t)
			for _, subject := range []string{
				stream,
				"$JS.API.DIRECT.GET." + stream, "$JS.API.DIRECT.GET." + stream + ".a",
				"$JS.API.STREAM.MSG.GET." + stream,
			} {
				if _, err := nc.Subscribe(subject, func(m *nats.Msg) {
					// Who hears nothing fails the test; the last answer may come after its end.
					_ = nc.PublishMsg(&nats.Msg{Subject: m.Reply, Header: tc.header, Data: []byte(tc.body)})
				}); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
			defer cancel()
			if err := tc.call(ctx, nc, stream); !tc.want(err) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestExpect(t *testing.T) {
	t.Parallel()
	m := wire.Expect(nats.NewMsg("a"), 0)
	if got := m.Header[nats.ExpectedLastSubjSeqHdr]; len(got) != 1 || got[0] != "0" {
		t.Errorf("got %q", got)
	}
	bare := &nats.Msg{Subject: "a"}
	if wire.Expect(bare, 18446744073709551615) != bare || len(bare.Header) != 1 {
		t.Errorf("got %+v", bare)
	}
}

func TestAPIError(t *testing.T) {
	t.Parallel()
	e := &wire.APIError{Code: 400, Number: 10071, Description: "wrong last sequence: 3"}
	wrapped := fmt.Errorf("append: %w", e)
	if wire.Number(wrapped) != 10071 || !wire.IsWrongLastSequence(wrapped) {
		t.Errorf("not seen through the wrap: %v", wrapped)
	}
	for _, want := range []string{"wrong last sequence: 3", "400", "10071"} {
		if !strings.Contains(e.Error(), want) {
			t.Errorf("%q does not name %q", e, want)
		}
	}
	if wire.Number(nil) != 0 || wire.Number(errors.New("x")) != 0 || wire.IsWrongLastSequence(nil) {
		t.Error("sees a code where there is none")
	}
}
