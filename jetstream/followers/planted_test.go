package followers_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/followers"
)

// A message that somebody planted past the store, under the name of an aggregate that
// there was not, was handled as its first commit. It waits for a person, and the others
// go on.
func TestPlantedFirstCommit(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *bench) {
		b.append("a", 1)
		from, err := b.store.Subject("thing", "a")
		if err != nil {
			t.Fatal(err)
		}
		to, err := b.store.Subject("thing", "planted")
		if err != nil {
			t.Fatal(err)
		}
		natstest.Retry(t, "it is planted", func(ctx context.Context) error {
			m, err := wire.LeaderLast(ctx, b.store.Conn(), b.store.Name(), from)
			if err != nil {
				return err
			}
			forged := &nats.Msg{Subject: to, Header: maps.Clone(m.Header), Data: m.Data}
			delete(forged.Header, "Nats-Expected-Last-Subject-Sequence")
			forged.Header["Rossby-Commit"] = []string{"forged"}
			if _, err := wire.LeaderLast(ctx, b.store.Conn(), b.store.Name(), to); !errors.Is(err, wire.ErrNotFound) {
				return err // it is there, or nobody knows
			}
			_, err = wire.Publish(ctx, b.store.Conn(), forged)
			return err
		})
		b.append("a", 2)
		b.run()
		s := b.eventually("it waits, the others are done", func(s followers.Status) bool {
			return s.Kind == "gateway" && s.Parked == 1 && len(b.delivered()) >= 2
		})
		// Beside it another may wait for a moment, whose delivery was not recorded in time.
		i := slices.IndexFunc(s.Lanes, func(l followers.Lane) bool { return l.Parked })
		if i < 0 {
			t.Fatalf("%+v", s.Lanes)
		}
		parked := s.Lanes[i]
		if parked.Lane != to || !strings.Contains(parked.Error, "damaged store (chain)") {
			t.Errorf("%+v", s.Lanes)
		}
		found := 0
		natstest.Retry(t, "a verification", func(ctx context.Context) error {
			found = 0
			for _, err := range b.store.Verify(ctx, jetstream.Verification{}) {
				if err != nil {
					return err
				}
				found++
			}
			return nil
		})
		if found == 0 {
			t.Error("a verification found nothing")
		}
		b.asks("discard", func() error {
			return b.admin.Discard(t.Context(), "out", parked, true, "ada", "nobody stored it")
		}, followers.ErrNotWaiting)
		b.eventually("the rest is done", func(s followers.Status) bool { return caughtUp(s) && s.Parked == 0 })
		if got := strings.Join(b.delivered(), ", "); strings.Contains(got, "planted") {
			t.Errorf("delivered %s", got)
		}
	})
}
