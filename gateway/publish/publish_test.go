package publish_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/gateway/cloudevent"
	"github.com/rossby-go/rossby/gateway/publish"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

type opened struct {
	Cents int64 `json:"cents"`
}

func delivery() gateway.Delivery {
	return gateway.Delivery{
		Meta: jetstream.Meta{
			Type: "account", ID: "ä1", EventID: "abc.0", Name: "opened", Version: 3,
			Time: time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC), TraceParent: "00-x-y-01",
		},
		Store: "bank", IdempotencyKey: "out-abc.0",
	}
}

func newPublisher(t *testing.T, nc *nats.Conn, subject string, change func(*publish.Config)) *publish.Publisher {
	t.Helper()
	cfg := publish.Config{Conn: nc, Subject: func(gateway.Delivery) string { return subject }, Timeout: natstest.Patience}
	if change != nil {
		change(&cfg)
	}
	p, err := publish.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func deliver(t *testing.T, p *publish.Publisher) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
	defer cancel()
	return p.Deliver(ctx, opened{5}, delivery())
}

// A stream gets each event once, however often it is published, without any header
// of the server but the id.
func TestToAStream(t *testing.T) {
	t.Parallel()
	for name, setup := range map[string]func(t *testing.T) (nc *nats.Conn, replicas int){
		"R1": func(t *testing.T) (*nats.Conn, int) { t.Helper(); return natstest.Conn(t, natstest.Run(t).URL()), 1 },
		"R3": func(t *testing.T) (*nats.Conn, int) { t.Helper(); return natstest.RunCluster(t).Conn(t), 3 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nc, replicas := setup(t)
			stream := natstest.Name(t)
			natstest.CreateStream(t, nc, natsjs.StreamConfig{Name: stream, Subjects: []string{stream + ".>"}, Replicas: replicas})
			p := newPublisher(t, nc, stream+".account.opened", func(c *publish.Config) {
				c.TypePrefix = "com.example."
				c.Header = func(gateway.Delivery) nats.Header {
					return nats.Header{
						"X-Tenant": {"t1"}, "Nats-Rollup": {"all"}, "nats-expected-last-sequence": {"77"}, "ce-id": {"forged"},
					}
				}
			})
			for range 3 {
				// As a gateway does: again, until it is acknowledged.
				natstest.Retry(t, "it is published", func(ctx context.Context) error {
					return p.Deliver(ctx, opened{5}, delivery())
				})
			}
			js := natstest.JetStream(t, nc)
			var m *natsjs.RawStreamMsg
			natstest.Retry(t, "what is stored", func(ctx context.Context) error {
				s, err := js.Stream(ctx, stream)
				if err != nil {
					return err
				}
				if n := s.CachedInfo().State.Msgs; n != 1 {
					t.Errorf("%d messages", n)
				}
				m, err = s.GetMsg(ctx, 1)
				return err
			})
			if t.Failed() {
				return
			}
			for name := range m.Header {
				if strings.HasPrefix(strings.ToLower(name), "nats-") && name != nats.MsgIdHdr {
					t.Errorf("header %s: %q", name, m.Header[name])
				}
			}
			if m.Header["X-Tenant"][0] != "t1" || m.Header["Idempotency-Key"][0] != "out-abc.0" || m.Header["traceparent"][0] != "00-x-y-01" {
				t.Errorf("%v", m.Header)
			}
			get := func(name string) string {
				if v := m.Header[name]; len(v) > 0 {
					return v[0]
				}
				return ""
			}
			e, err := cloudevent.Read(get("Content-Type"), get, m.Data)
			if err != nil || e.ID != "abc.0" || e.Type != "com.example.account.opened" || e.Subject != "ä1" || e.Version != 3 ||
				!e.Time.Equal(delivery().Time) || string(e.Data) != `{"cents":5}` || e.Source != "/bank" {
				t.Errorf("%v: %+v", err, e)
			}
		})
	}
}

func TestToWhoeverListens(t *testing.T) {
	t.Parallel()
	url := natstest.Run(t).URL()
	sub, err := natstest.Conn(t, url).SubscribeSync("out.account")
	if err != nil {
		t.Fatal(err)
	}
	if err := sub.SetPendingLimits(10, 1<<20); err != nil {
		t.Fatal(err)
	}
	nc := natstest.Conn(t, url)
	natstest.Eventually(t, "the message", func() error {
		if err := deliver(t, newPublisher(t, nc, "out.account", func(c *publish.Config) { c.Core = true })); err != nil {
			return err
		}
		m, err := sub.NextMsg(100 * time.Millisecond)
		if err == nil && (string(m.Data) != `{"cents":5}` || len(m.Header[nats.MsgIdHdr]) > 0) {
			t.Errorf("%q %v", m.Data, m.Header)
		}
		return err
	})
}

// What a message cannot get past is permanent, what a server cannot do now is not.
func TestFailures(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.Run(t).URL())
	small := natstest.Name(t)
	natstest.CreateStream(t, nc, natsjs.StreamConfig{Name: small, Subjects: []string{small + ".>"}, MaxMsgSize: 64})
	for subject, permanent := range map[string]bool{
		"": true, "a..b": true, "a.*": true, "a.>": true, "a b": true, "bank.event.account.1.a": true,
		"$JS.API.STREAM.DELETE.bank": true, "$SYS.x": true, "$SRV.PING": true, small + ".x": true,
		"nobody.keeps.this": false,
	} {
		err := deliver(t, newPublisher(t, nc, subject, nil))
		if err == nil || errors.Is(err, gateway.ErrPermanent) != permanent {
			t.Errorf("%q: %v, permanent is %v", subject, err, permanent)
		}
	}
	p, err := publish.New(publish.Config{Timeout: -1})
	if p != nil || err == nil || !strings.Contains(err.Error(), "Conn") || !strings.Contains(err.Error(), "Subject") ||
		!strings.Contains(err.Error(), "Timeout") {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := publish.Send[opened](newPublisher(t, nc, small+".y", nil))(ctx, opened{}, delivery()); err == nil {
		t.Error("published though the context had ended")
	}
}
