package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// put makes a bucket and writes keys into it.
func put(t *testing.T, nc *nats.Conn, bucket string, keys ...string) {
	t.Helper()
	js := natstest.JetStream(t, nc)
	natstest.CreateStream(t, nc, natsjs.StreamConfig{
		Name: "KV_" + bucket, Subjects: []string{"$KV." + bucket + ".>"}, MaxMsgsPerSubject: 1, AllowDirect: true,
	})
	for _, key := range keys {
		natstest.Retry(t, "put "+key, func(ctx context.Context) error {
			_, err := js.Publish(ctx, "$KV."+bucket+"."+key, []byte("x"))
			return err
		})
	}
}

// A store of which only the stream is gone is not made anew without a word: it was
// deleted by mistake, or could not be loaded, and its files may be there yet.
func TestALostStoreIsNotMadeAnew(t *testing.T) {
	t.Parallel()
	url := natstest.Run(t).URL()
	for name, c := range map[string]struct {
		leave func(t *testing.T, nc *nats.Conn, store string)
		// left are the streams that are named, "#" stands for the store.
		left []string
	}{
		"a view": {
			leave: func(t *testing.T, nc *nats.Conn, store string) {
				t.Helper()
				put(t, nc, store+"_accounts", "1.a1", "_rossby.view", "_rossby.1")
			},
			left: []string{"KV_#_accounts"},
		},
		"followers, states and timers": {
			leave: func(t *testing.T, nc *nats.Conn, store string) {
				t.Helper()
				put(t, nc, store+"__followers", "mailer")
				put(t, nc, store+"__state", "account.f.a1")
				natstest.CreateStream(t, nc, natsjs.StreamConfig{Name: store + "__timers", Subjects: []string{store + ".timer.>"}})
				if _, err := natstest.JetStream(t, nc).Publish(t.Context(), store+".timer.t", nil); err != nil {
					t.Fatal(err)
				}
			},
			left: []string{"#__timers", "KV_#__followers", "KV_#__state"},
		},
		// Administrators make buckets ahead, and other programs have theirs.
		"empty ones": {leave: func(t *testing.T, nc *nats.Conn, store string) {
			t.Helper()
			put(t, nc, store+"__followers")
			put(t, nc, store+"__state")
			put(t, nc, store+"_accounts")
		}},
		"a bucket of somebody else": {leave: func(t *testing.T, nc *nats.Conn, store string) {
			t.Helper()
			put(t, nc, store+"_settings", "colour")
			put(t, nc, store, "colour")
		}},
		"another store": {leave: func(t *testing.T, nc *nats.Conn, store string) {
			t.Helper()
			open(t, nc, jetstream.Config{Name: store + "-two"})
			put(t, nc, store+"-two__followers", "mailer")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nc := natstest.Conn(t, url)
			store := natstest.Name(t)
			c.leave(t, nc, store)
			want := make([]string, 0, len(c.left))
			for _, name := range c.left {
				want = append(want, strings.ReplaceAll(name, "#", store))
			}
			slices.Sort(want)
			for range 2 { // nothing is made by the first
				_, err := jetstream.Open(t.Context(), nc, jetstream.Config{Name: store})
				if len(want) == 0 {
					if err != nil {
						t.Error(err)
					}
					continue
				}
				lost, ok := errors.AsType[*jetstream.StoreLostError](err)
				if !ok || lost.Store != store || !slices.Equal(lost.Left, want) || !errors.Is(err, jetstream.ErrStoreNotFound) {
					t.Fatalf("%v, want %v", err, want)
				}
				for _, name := range want {
					if !strings.Contains(err.Error(), name) {
						t.Errorf("%v does not name %s", err, name)
					}
				}
			}
			if len(want) == 0 {
				return
			}
			js := natstest.JetStream(t, nc)
			for _, name := range want {
				if err := js.DeleteStream(t.Context(), name); err != nil {
					t.Fatal(err)
				}
			}
			open(t, nc, jetstream.Config{Name: store})
		})
	}
}

// An old store whose stream is there opens whatever there is beside it.
func TestAStoreOpensBesideItsStreams(t *testing.T) {
	t.Parallel()
	nc := natstest.Conn(t, natstest.RunCluster(t).URLs()[0])
	cfg := jetstream.Config{Name: natstest.Name(t), Replicas: 3}
	s := open(t, nc, cfg)
	put(t, nc, s.Name()+"__followers", "mailer")
	if again := open(t, nc, cfg); again.ID() != s.ID() {
		t.Error(again.ID(), s.ID())
	}
	natstest.Recreate(t, nc, s.Name())
	if anew := open(t, nc, cfg); anew.ID() == s.ID() {
		t.Error("the store's id is the old one")
	}
	// Three servers say so, too, once all of them have heard that the stream is gone.
	js, _ := natsjs.New(nc)
	left := []string{"KV_" + s.Name() + "__followers"}
	natstest.Retry(t, "the store is lost", func(ctx context.Context) error {
		if err := js.DeleteStream(ctx, s.Name()); err != nil && !errors.Is(err, natsjs.ErrStreamNotFound) {
			return err
		}
		_, err := jetstream.Open(ctx, nc, cfg)
		if lost, ok := errors.AsType[*jetstream.StoreLostError](err); !ok || !slices.Equal(lost.Left, left) {
			return fmt.Errorf("it is opened: %w", err)
		}
		return nil
	})
}
