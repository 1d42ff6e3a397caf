package wire

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// FuzzAnswers: whatever a server answers is an acknowledgement, a message or an
// error; the quick way to read an acknowledgement reads what the slow one does.
func FuzzAnswers(f *testing.F) {
	f.Add(`{"stream":"bank","seq":7}`, "200", "7", "2026-05-04T03:02:01Z", "$JS.ACK.bank.c.1.7.3.1764072000000000000.0")
	f.Add(`{"stream":"bank","seq":0}`, "404", "", "", "")
	f.Add(`{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 3"}}`, "503", "-1", "x", "........")
	f.Add(`{"stream":"a\"","seq":18446744073709551616}`, "", "18446744073709551616", "9999-99-99T00:00:00Z", "$JS.ACK.........")
	f.Add(`{"stream":"bank","seq":7,"batch":"b","count":3}`, "x", "1", "", "a.b.c")
	f.Fuzz(func(t *testing.T, body, status, sequence, stamp, reply string) {
		got, err := ack([]byte(body))
		if err == nil {
			var slow struct {
				Stream string `json:"stream"`
				Seq    uint64 `json:"seq"`
			}
			if err := json.Unmarshal([]byte(body), &slow); err != nil || slow.Seq != got.Sequence || slow.Stream != got.Stream {
				t.Errorf("%q: %+v, the slow way %+v, %v", body, got, slow, err)
			}
		}
		msg := &nats.Msg{Data: []byte(body), Reply: reply, Header: nats.Header{
			"Status": {status}, nats.JSSequence: {sequence}, nats.JSTimeStamp: {stamp}, "Rossby-Tx": {reply},
		}}
		_, _ = Answer(msg)
		if m, err := direct(msg); err == nil && (status != "" || m.Time.IsZero()) {
			t.Errorf("%q: %+v", status, m)
		}
		if i, n := TxPlace(msg.Header); i < 1 || i > n || n > MaxBatch {
			t.Errorf("%q is %d of %d", reply, i, n)
		}
		if seq, _, _, err := delivery(msg); err != nil && (seq != 0 || !errors.Is(err, ErrProtocol)) {
			t.Errorf("%q: %d, %v", reply, seq, err)
		}
	})
}

// FuzzPermission: whatever the server complains of, is read or left alone.
func FuzzPermission(f *testing.F) {
	f.Add(`Permissions Violation for Publish to "bank.event.a"`)
	f.Add(`Permissions Violation for Subscription to "_INBOX.x.*" using queue "q"`)
	f.Add(`Permissions Violation for Publish to "\x00\"`)
	f.Add(`Permissions Violation for Publish with Reply of "x"`)
	f.Fuzz(func(t *testing.T, text string) {
		denied := permission(errors.Join(nats.ErrPermissionViolation, errors.New(text)))
		if denied == nil {
			return
		}
		if denied.Op != opPublish && denied.Op != opSubscribe || denied.Error() == "" || !Denied(denied) || DeniedSurely(denied) {
			t.Errorf("%+v", denied)
		}
	})
}

// TestRequestsEnd: a request that is lost is not waited for without an end.
func TestRequestsEnd(t *testing.T) {
	t.Parallel()
	ctx, cancel := bounded(context.Background())
	defer cancel()
	if end, ok := ctx.Deadline(); !ok || time.Until(end) > answerTimeout {
		t.Error(end, ok)
	}
	ctx, cancel = context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	if same, end := bounded(ctx); same != ctx {
		end()
		t.Error("a deadline was changed")
	}
}
