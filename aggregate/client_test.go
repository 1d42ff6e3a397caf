package aggregate_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

func newClient(t testing.TB, nc *nats.Conn, store *jetstream.Store) *aggregate.Client {
	t.Helper()
	return clientOf(t, nc, store.Name(), accounts)
}

// clientOf gives a client that waits for its answers.
func clientOf[S any](t testing.TB, nc *nats.Conn, store string, typ *aggregate.Type[S]) *aggregate.Client {
	t.Helper()
	return clientWith(t, nc, store, typ, natstest.Patience)
}

// clientWith gives a client that asks again after a time.
func clientWith[S any](t testing.TB, nc *nats.Conn, store string, typ *aggregate.Type[S], after time.Duration) *aggregate.Client {
	t.Helper()
	c, err := aggregate.NewClient(nc, store, typ, aggregate.ClientConfig{AttemptTimeout: after, Timeout: natstest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// soon is how long a client waits for an answer that was lost.
const soon = 300 * time.Millisecond

// The same errors, whether the repository is in this process or not.
func TestClientErrorsAreTheRepositorys(t *testing.T) { // AC-A14
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, repo := newRepository(t, nc)
	run(t, newService(t, repo, aggregate.ServiceConfig{}))
	for _, target := range []aggregate.Target{repo, newClient(t, nc, store)} {
		name := strings.Trim(strings.ToLower(fmt.Sprintf("%T", target)[11:15]), ".")
		made, err := target.Create(t.Context(), name, open{100})
		if err != nil || made.Version != 1 || made.ID != name || made.Events[0].Event != (opened{100}) {
			t.Fatalf("%+v %v", made, err)
		}
		res := must(t, target, name, &debit{1}, aggregate.CommandID("id"))
		again := must(t, target, name, debit{1}, aggregate.CommandID("id"))
		if !again.Duplicate || again.Version != res.Version || again.Position != res.Position || again.Events[0].EventID != res.Events[0].EventID {
			t.Fatalf("%+v %+v", res, again)
		}
		for _, c := range []struct {
			want error
			id   string
			cmd  any
			opts []aggregate.CallOption
		}{
			{aggregate.ErrExists, name, open{1}, nil},
			{aggregate.ErrNotFound, "absent", debit{1}, nil},
			{aggregate.ErrRejected, name, debit{1000}, nil},
			{aggregate.ErrOtherPayload, name, debit{2}, []aggregate.CallOption{aggregate.CommandID("id")}},
		} {
			if _, err := target.Execute(t.Context(), c.id, c.cmd, c.opts...); !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", name, err, c.want)
			}
		}
		_, err = target.Execute(t.Context(), name, debit{1000})
		if r := as[*aggregate.RejectedError](t, err); r.Code != "insufficient-funds" || r.Reason != "balance 99 is below 1000" {
			t.Errorf("%s: %+v", name, r)
		}
		_, err = target.Execute(t.Context(), name, debit{1}, aggregate.ExpectVersion(9))
		if v := as[*aggregate.VersionError](t, err); v.Expected != 9 || v.Actual != 2 || v.ID != name || v.Type != "account" {
			t.Errorf("%s: %+v", name, v)
		}
		_, err = target.Execute(t.Context(), name, struct{}{})
		invalid(t, err, "command")
		// Made twice without an id of its own: one aggregate.
		id := jetstream.NewCommandID()
		one, err1 := target.Create(t.Context(), "", open{1}, aggregate.CommandID(id))
		two, err2 := target.Create(t.Context(), "", open{1}, aggregate.CommandID(id))
		if err1 != nil || err2 != nil || one.ID != two.ID || !two.Duplicate {
			t.Errorf("%s: %+v %v %+v %v", name, one, err1, two, err2)
		}
	}
	client := newClient(t, nc, store)
	_, err := client.Execute(t.Context(), "repo", fail{"plain"})
	if !errors.Is(err, aggregate.ErrInternal) || strings.Contains(err.Error(), errPlain.Error()) {
		t.Error(err)
	}
	// What is too large never goes out.
	_, err = client.Execute(t.Context(), "repo", fail{strings.Repeat("x", int(nc.MaxPayload()))})
	wantAs[*jetstream.RefusedError](t, err)
}

// front stands before a service and decides what becomes of requests and
// replies.
func front(t testing.TB, nc *nats.Conn, store *jetstream.Store, pass func(n int64, req *nats.Msg, forward func() *nats.Msg) *nats.Msg) string {
	t.Helper()
	name := natstest.Name(t)
	var n atomic.Int64
	// Whoever asked may have gone, and the test be over, when an answer comes.
	var mu sync.Mutex
	over := false
	fail := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if !over && t.Context().Err() == nil {
			t.Error(err)
		}
	}
	sub, err := nc.Subscribe(name+".command.>", func(m *nats.Msg) {
		forward := func() *nats.Msg {
			resp, err := nc.RequestMsgWithContext(t.Context(), &nats.Msg{
				Subject: store.Name() + strings.TrimPrefix(m.Subject, name), Header: m.Header, Data: m.Data,
			})
			if err != nil {
				fail(err)
			}
			return resp
		}
		if resp := pass(n.Add(1), m, forward); resp != nil {
			if err := m.RespondMsg(&nats.Msg{Header: resp.Header, Data: resp.Data}); err != nil {
				fail(err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = sub.Unsubscribe()
		mu.Lock()
		defer mu.Unlock()
		over = true
	})
	return name
}

func errorReply(code, body string) *nats.Msg {
	return &nats.Msg{Header: nats.Header{micro.ErrorCodeHeader: {code}, micro.ErrorHeader: {"x"}}, Data: []byte(body)}
}

func TestClientAsksAgain(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	store, repo := newRepository(t, nc)
	run(t, newService(t, repo, aggregate.ServiceConfig{}))
	request(t, nc, store.Name()+".command.account.credit.absent", "", nil) // it listens

	t.Run("AfterALostReply", func(t *testing.T) {
		t.Parallel()
		must(t, repo, "lost", open{100})
		var mu sync.Mutex
		var ids []string
		client := clientWith(t, nc, front(t, nc, store, func(n int64, req *nats.Msg, forward func() *nats.Msg) *nats.Msg {
			mu.Lock()
			defer mu.Unlock()
			ids = append(ids, req.Header.Get("Rossby-Command-Id"))
			if left, err := time.ParseDuration(req.Header.Get("Rossby-Timeout")); err != nil || left > soon || left <= 0 {
				t.Errorf("timeout %q", req.Header.Get("Rossby-Timeout"))
			}
			switch n {
			case 1: // executed, but the reply is lost
				forward()
				return nil
			case 2: // done before, so "busy" says nothing
				return errorReply("429", `{"kind":"busy"}`)
			case 3:
				return errorReply("500", `{"kind":"internal"}`)
			case 4:
				return errorReply("503", `{"kind":"unavailable"}`)
			default:
				return forward()
			}
		}), accounts, soon)
		res := must(t, client, "lost", debit{10})
		if !res.Duplicate || res.Version != 2 || res.Events[0].Event != (debited{10}) {
			t.Fatalf("%+v", res)
		}
		balance(t, repo, "lost", 90, 2)
		mu.Lock()
		defer mu.Unlock()
		if len(ids) < 5 || ids[0] == "" || len(slices.Compact(ids)) != 1 {
			t.Fatal(ids)
		}
	})

	t.Run("AfterUnavailableAndUnknown", func(t *testing.T) { // AC-A14
		t.Parallel()
		must(t, repo, "away", open{100})
		client := clientOf(t, nc, front(t, nc, store, func(n int64, _ *nats.Msg, forward func() *nats.Msg) *nats.Msg {
			switch n {
			case 1:
				return errorReply("503", `{"kind":"unavailable"}`)
			case 2:
				return errorReply("504", `{"kind":"unknown"}`)
			default:
				return forward()
			}
		}), accounts)
		// The conflict after it is final, not repeated.
		_, err := client.Execute(t.Context(), "away", debit{10}, aggregate.ExpectVersion(5))
		wantAs[*aggregate.VersionError](t, err)
		must(t, client, "away", debit{10})
		balance(t, repo, "away", 90, 2)
	})

	t.Run("AfterBusy", func(t *testing.T) {
		t.Parallel()
		must(t, repo, "busy", open{100})
		var mu sync.Mutex
		var at []time.Time
		client := clientOf(t, nc, front(t, nc, store, func(n int64, _ *nats.Msg, forward func() *nats.Msg) *nats.Msg {
			mu.Lock()
			defer mu.Unlock()
			at = append(at, time.Now())
			switch n {
			case 1:
				return errorReply("429", `{"kind":"busy","retryAfter":"300ms"}`)
			case 2:
				return errorReply("429", `{"kind":"busy","code":"contended"}`)
			case 3:
				return errorReply("429", `{"kind":"busy","retryAfter":"soon"}`)
			default:
				return forward()
			}
		}), accounts)
		if res := must(t, client, "busy", debit{10}); res.Duplicate || res.Version != 2 {
			t.Errorf("%+v", res)
		}
		if len(at) < 4 || at[1].Sub(at[0]) < 150*time.Millisecond {
			t.Error("asked again too soon:", at) // half of it is the least
		}
		// Busy to the end of the caller's time: nothing was done, and that is what it hears.
		client = clientOf(t, nc, front(t, nc, store, func(n int64, _ *nats.Msg, _ func() *nats.Msg) *nats.Msg {
			return errorReply("429", `{"kind":"busy","retryAfter":"`+[]string{"10ms", "1h"}[n/3]+`","reason":"full"}`)
		}), accounts)
		_, err := client.Execute(t.Context(), "busy", debit{10})
		if b := as[*aggregate.BusyError](t, err); b.RetryAfter != time.Hour || b.Reason != "full" || !errors.Is(err, aggregate.ErrBusy) {
			t.Error(err)
		}
	})

	t.Run("ButReportsFaultsAtOnce", func(t *testing.T) {
		t.Parallel()
		for body, want := range map[string]error{
			`{"kind":"internal"}`: aggregate.ErrInternal, `no JSON`: aggregate.ErrInternal, `{"kind":"new"}`: aggregate.ErrInternal,
		} {
			client := clientOf(t, nc, front(t, nc, store, func(int64, *nats.Msg, func() *nats.Msg) *nats.Msg {
				return errorReply("500", body)
			}), accounts)
			if _, err := client.Execute(t.Context(), "a", debit{1}); !errors.Is(err, want) {
				t.Errorf("%s: %v", body, err)
			}
		}
	})

	t.Run("UntilTheContextEnds", func(t *testing.T) {
		t.Parallel()
		// A request that was under way when the time was over is unknown, and one that
		// never went out unavailable: the next gets more time.
		ends := func(client *aggregate.Client, want, other error, asked func() bool) {
			t.Helper()
			short := 100 * time.Millisecond
			natstest.Eventually(t, "the time ends", func() error {
				short *= 2
				ctx, cancel := context.WithTimeout(t.Context(), short)
				defer cancel()
				_, err := client.Execute(ctx, "a", debit{1})
				switch {
				case !errors.Is(err, want) || errors.Is(err, other):
					return fmt.Errorf("after %v: %w", short, err)
				case !asked():
					return errors.New("nobody was asked")
				}
				return nil
			})
		}
		always := func() bool { return true }
		ends(clientOf(t, nc, "nobody", accounts), jetstream.ErrUnavailable, jetstream.ErrUnknownOutcome, always)
		silent := clientOf(t, nc, front(t, nc, store, func(int64, *nats.Msg, func() *nats.Msg) *nats.Msg { return nil }), accounts)
		ends(silent, jetstream.ErrUnknownOutcome, jetstream.ErrUnavailable, always)
		// Open once, refused ever after: still unknown.
		var mu sync.Mutex
		asked, refused := map[string]int{}, false
		open := clientOf(t, nc, front(t, nc, store, func(_ int64, req *nats.Msg, _ func() *nats.Msg) *nats.Msg {
			mu.Lock()
			defer mu.Unlock()
			id := req.Header.Get("Rossby-Command-Id")
			if asked[id]++; asked[id] == 1 {
				return errorReply("504", `{"kind":"unknown"}`)
			}
			refused = true
			return errorReply("429", `{"kind":"busy"}`)
		}), accounts)
		ends(open, jetstream.ErrUnknownOutcome, aggregate.ErrBusy, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return refused
		})
	})
}
