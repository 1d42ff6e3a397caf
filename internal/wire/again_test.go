package wire_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/internal/wire"
)

// plainServer is one without JetStream, which a test plays.
func plainServer(t *testing.T) string {
	t.Helper()
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true,
	})
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
	return srv.ClientURL()
}

// TestLeaderReadsAskAgain: what is asked while a stream has no leader is never
// answered, so that a read which waits for its answer waits past the election.
func TestLeaderReadsAskAgain(t *testing.T) {
	t.Parallel()
	url := plainServer(t)
	for name, read := range map[string]func(context.Context, *nats.Conn, string) error{
		"last": func(ctx context.Context, nc *nats.Conn, stream string) error {
			_, err := wire.LeaderLast(ctx, nc, stream, wire.Everything)
			return err
		},
		"end": func(ctx context.Context, nc *nats.Conn, stream string) error {
			_, err := wire.LeaderEnd(ctx, nc, stream)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nc := natstest.Conn(t, url)
			stream := natstest.Name(t)
			var asked atomic.Int64
			for _, subject := range []string{"$JS.API.STREAM.MSG.GET." + stream, "$JS.API.STREAM.INFO." + stream} {
				if _, err := nc.Subscribe(subject, func(m *nats.Msg) {
					if asked.Add(1) > 1 {
						_ = m.Respond([]byte(`{"message":{"seq":7,"subject":"a"},"state":{"last_seq":7}}`))
					}
				}); err != nil {
					t.Error(err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
			defer cancel()
			if err := read(ctx, nc, stream); err != nil || asked.Load() < 2 {
				t.Errorf("asked %d times: %v", asked.Load(), err)
			}
		})
	}
}

// TestNoLeaderNoEnd: without a leader every replica tells of a stream, as far as it
// has got. Found by the torture rig: split-leader.
func TestNoLeaderNoEnd(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, plainServer(t))
	stream := natstest.Name(t)
	if _, err := nc.Subscribe("$JS.API.STREAM.INFO."+stream, func(m *nats.Msg) {
		_ = m.Respond([]byte(`{"state":{"last_seq":0},"cluster":{"name":"c","leader":""}}`))
	}); err != nil {
		t.Fatal(err)
	}
	if end, err := wire.LeaderEnd(t.Context(), nc, stream); !errors.Is(err, wire.ErrNoLeader) {
		t.Error(end, err)
	}
}

// TestFollowed: a leader counts itself, and whoever it heard of within two heartbeats.
func TestFollowed(t *testing.T) {
	t.Parallel()
	const late, now, never = 2*time.Second + 1, time.Second, 0
	for _, c := range []struct {
		heard []time.Duration
		want  bool
	}{
		{nil, true},
		{[]time.Duration{now}, true},
		{[]time.Duration{late}, false},
		{[]time.Duration{now, late}, true},
		{[]time.Duration{never, 2 * time.Second}, true},
		{[]time.Duration{late, late}, false},
		{[]time.Duration{never, never}, false},
		{[]time.Duration{now, now, late, never}, true},
		{[]time.Duration{now, late, late, late}, false},
	} {
		if got := wire.Followed(c.heard); got != c.want {
			t.Errorf("%v: %v", c.heard, got)
		}
	}
}
