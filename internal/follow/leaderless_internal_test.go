package follow

import (
	"context"
	"errors"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/internal/wire"
)

// TestNoLeaderIsNoHead: a stream without a leader is told of by any replica, one that
// has nothing yet too. A follower that believed it took its store for restored and
// stopped. Found by the torture rig: split-leader.
func TestNoLeaderIsNoHead(t *testing.T) {
	t.Parallel()
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	})
	if !srv.ReadyForConnections(natstest.Patience) {
		t.Fatal("server is not ready")
	}
	nc := natstest.Conn(t, srv.ClientURL())
	answers := make(chan string, 1)
	if _, err := nc.Subscribe("$JS.API.STREAM.INFO.bank", func(m *nats.Msg) {
		_ = m.Respond([]byte(`{"type":"io.nats.jetstream.api.v1.stream_info_response","config":{"name":"bank"},` +
			`"state":{"last_seq":7},"cluster":{"name":"c","leader":"` + <-answers + `"}}`))
	}); err != nil {
		t.Fatal(err)
	}
	f, err := New(Config{
		Conn: nc, Stream: "bank", Bucket: "bank__followers", Name: "f",
		Start:  func(context.Context) (uint64, error) { return 0, nil },
		Handle: func(context.Context, Delivery) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
	defer cancel()
	answers <- ""
	if info, err := f.streamInfo(ctx); !errors.Is(err, wire.ErrNoLeader) {
		t.Error(info, err)
	}
	answers <- "n1"
	if info, err := f.streamInfo(ctx); err != nil || info.State.LastSeq != 7 {
		t.Error(info, err)
	}
}

// TestBeyondWhatALeaderHas: a position that is beyond what a leader has proves that the
// stream was restored only if the other replicas follow that leader: one that was cut
// off, and replaced, answers what it knew then.
func TestBeyondWhatALeaderHas(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cluster string
		want    error
	}{
		"one server":         {`null`, ErrBeyondHead},
		"one replica":        {`{"leader":"n1"}`, ErrBeyondHead},
		"a follower":         {`{"leader":"n1","replicas":[{"active":900000000},{"active":60000000000}]}`, ErrBeyondHead},
		"nobody heard":       {`{"leader":"n1","replicas":[{"active":7000000000},{"active":7000000000}]}`, wire.ErrNoLeader},
		"nobody heard, ever": {`{"leader":"n1","replicas":[{"active":0},{"active":0}]}`, wire.ErrNoLeader},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nc := natstest.Conn(t, natstest.RunBare(t))
			if _, err := nc.Subscribe("$JS.API.STREAM.INFO.bank", func(m *nats.Msg) {
				_ = m.Respond([]byte(`{"type":"io.nats.jetstream.api.v1.stream_info_response","config":{"name":"bank"},` +
					`"state":{"last_seq":7},"cluster":` + c.cluster + `}`))
			}); err != nil {
				t.Fatal(err)
			}
			f, err := New(Config{
				Conn: nc, Stream: "bank", Bucket: "bank__followers", Name: "f",
				Start:  func(context.Context) (uint64, error) { return 8, nil },
				Handle: func(context.Context, Delivery) error { return nil },
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := (&tenure{f: f, cfg: &f.cfg, ctx: t.Context()}).prepare(8, natstest.Patience); !errors.Is(err, c.want) {
				t.Error(err)
			}
		})
	}
}

// TestNoJetStreamIsNoRecord: where JetStream is away nobody knows whether a follower ever
// ran. It was said that it never did.
func TestNoJetStreamIsNoRecord(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.RunBare(t))
	ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
	defer cancel()
	if _, err := ReadStatus(ctx, nc, "bank", "bank__followers", "f"); errors.Is(err, ErrNoRecord) || !errors.Is(err, nats.ErrNoResponders) {
		t.Error(err)
	}
	if _, err := ReadOwner(ctx, nc, "bank__followers", "f"); errors.Is(err, ErrNoRecord) || !errors.Is(err, nats.ErrNoResponders) {
		t.Error(err)
	}
}
