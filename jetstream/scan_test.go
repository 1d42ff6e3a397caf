package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// longStore fills a store with n commits of aggregates of two types, without waiting
// for each: of one aggregate a single commit is under way at a time. Each expects the
// one before it to be the store's last, so that one that gets lost is sent again, with
// those after it.
func longStore(t *testing.T, s *jetstream.Store, n int) {
	t.Helper()
	const aggregates = 500
	var heads [aggregates]jetstream.Head
	msgs := make([]*nats.Msg, 0, n) // the i-th for sequence i+2
	for i := range n {
		k := i % aggregates
		typ := []string{"account", "customer"}[k%2]
		subject, err := s.Subject(typ, fmt.Sprint("a", k))
		if err != nil {
			t.Fatal(err)
		}
		c := jetstream.Commit{
			Head: jetstream.Head{
				Sequence: uint64(i) + 2, CommitID: fmt.Sprint("c", i), Ordinal: heads[k].Ordinal + 1, Version: heads[k].Version + 1,
			},
			Previous: heads[k].CommitID, PreviousSequence: heads[k].Sequence,
			EventNames: []string{"credited"}, Decisions: []jetstream.Decision{command("", event("credited", "\xc0"))},
		}
		heads[k] = c.Head
		m, err := jetstream.EncodeCommit(subject, &c, jetstream.Msgpack)
		if err != nil {
			t.Fatal(err)
		}
		m.Header[nats.ExpectedLastSeqHdr] = []string{strconv.Itoa(i + 1)}
		msgs = append(msgs, m)
	}
	for end := 0; end < n; {
		begin := end
		end = min(end+aggregates, n)
		natstest.Retry(t, "stored", func(ctx context.Context) error {
			last, err := s.LastSequence(ctx)
			if err != nil || last == uint64(end)+1 {
				return err
			}
			for _, m := range msgs[max(begin, int(last)-1) : end-1] {
				if err := s.Conn().PublishMsg(m); err != nil {
					return err
				}
			}
			_, err = wire.Publish(ctx, s.Conn(), msgs[end-1])
			return err
		})
	}
}

// TestLongScans goes over more than direct gets are used for, while connections
// break and leaders resign: nothing is left out or comes twice.
func TestLongScans(t *testing.T) {
	t.Parallel()
	n := unlessShort(12_000, 6000)
	check := func(t *testing.T, s *jetstream.Store, typ string, r jetstream.Range, first, step, last int, disturb func(i int)) {
		t.Helper()
		want := uint64(first)
		i := 0
		for c, err := range s.Scan(t.Context(), typ, r) {
			if err != nil {
				t.Fatal(err)
			}
			if c.Sequence != want || c.CommitID != "c"+strconv.Itoa(int(want)-2) || typ != "" && c.Type != typ {
				t.Fatalf("commit %s of %q at %d, want %d", c.CommitID, c.Type, c.Sequence, want)
			}
			want += uint64(step)
			if i++; disturb != nil {
				disturb(i)
			}
		}
		if want != uint64(last+step) {
			t.Errorf("%q %+v: the scan ended before %d", typ, r, want)
		}
	}
	checks := func(t *testing.T, s *jetstream.Store, disturb func(i int)) {
		t.Helper()
		check(t, s, "", jetstream.Range{}, 2, 1, n+1, disturb)
		check(t, s, "customer", jetstream.Range{After: 100}, 101, 2, n+1, disturb)
		check(t, s, "", jetstream.Range{After: 1000, To: uint64(n) - 500}, 1001, 1, n-500, disturb)
		wantFound(t, s, jetstream.Verification{}, "")
	}
	t.Run("R1", func(t *testing.T) {
		t.Parallel()
		srv := natstest.Run(t)
		s := open(t, natstest.Conn(t, srv.URL()), jetstream.Config{Name: natstest.Name(t)})
		longStore(t, s, n)
		// Who waits long begins anew: of several scans, one waits for nobody.
		natstest.Eventually(t, "a scan in one go", func() error {
			before := s.Conn().Stats().OutMsgs
			check(t, s, "", jetstream.Range{}, 2, 1, n+1, nil)
			if sent := s.Conn().Stats().OutMsgs - before; sent > 20 {
				return fmt.Errorf("%d requests for %d commits: it reads page by page", sent, n)
			}
			return nil
		})
		checks(t, s, nil)
		p, cut := env{backend: srv.URL()}.proxied(t, s)
		checks(t, cut, func(i int) {
			if i%3500 == 1700 {
				p.cut()
			}
		})
		// What never arrives is found by a silence, or by the next message.
		var healed sync.WaitGroup
		defer healed.Wait()
		checks(t, cut, func(i int) {
			if i != 4000 {
				return
			}
			before := p.lost.Load()
			p.loseReplies.Store(true)
			healed.Go(func() {
				natstest.Eventually(t, "replies to lose", func() error {
					if p.lost.Load() == before {
						return errors.New("are not there")
					}
					return nil
				})
				p.heal()
			})
		})
	})
	t.Run("R3", func(t *testing.T) {
		t.Parallel()
		c := natstest.RunCluster(t)
		s := open(t, c.Conn(t), jetstream.Config{Name: natstest.Name(t), Replicas: 3})
		longStore(t, s, n)
		checks(t, s, func(i int) {
			if i == 3000 {
				c.StepDown(t, s.Name())
			}
		})
	})
	t.Run("NoConsumers", func(t *testing.T) {
		t.Parallel()
		srv := natstest.Run(t)
		s := open(t, natstest.Conn(t, srv.URL()), jetstream.Config{Name: natstest.Name(t), MaxConsumers: 1})
		longStore(t, s, n)
		if _, err := stream(t, s.Conn(), s.Name()).CreateConsumer(t.Context(), natsjs.ConsumerConfig{Durable: "other"}); err != nil {
			t.Fatal(err)
		}
		checks(t, s, nil)
	})
}

// TestLoadsRightAfterAcknowledgements: on replicas that lag, what was acknowledged
// is read completely, by whatever read says that it is complete, and no read invents
// an end: a writer that builds on it never meets a conflict of its own making.
func TestLoadsRightAfterAcknowledgements(t *testing.T) {
	t.Parallel()
	c := natstest.RunCluster(t)
	nc := c.Conn(t)
	s := open(t, nc, jetstream.Config{Name: natstest.Name(t), Replicas: 3})
	readers := make([]*jetstream.Store, 0, 3)
	for _, url := range c.URLs() { // one on each server: their direct gets stay there, mostly
		readers = append(readers, open(t, natstest.Conn(t, url, nats.IgnoreDiscoveredServers()),
			jetstream.Config{Name: s.Name(), Replicas: 3}))
	}
	var head jetstream.Head
	var all []uint64
	stale := 0
	rounds := size(400)
	for i := range rounds {
		var err error
		if head, err = s.Append(t.Context(), write("a1", fmt.Sprint("k", i), head)); err != nil {
			t.Fatal(err)
		}
		all = append(all, head.Sequence)
		r := readers[i%len(readers)]
		last, err := r.Last(t.Context(), "account", "a1", jetstream.Leader)
		if err != nil || last.Head != head {
			t.Fatalf("the leader has %+v, %v, acknowledged is %+v", last, err, head)
		}
		if old, err := r.Last(t.Context(), "account", "a1", jetstream.Replica); err == nil && old.Sequence < head.Sequence ||
			errors.Is(err, jetstream.ErrNotFound) {
			stale++
		} else if err != nil {
			t.Fatal(err)
		}
		after, tail := uint64(0), all
		if n := len(all) - 20; n > 0 {
			after, tail = all[n-1], all[n:]
		}
		reads := []struct {
			name string
			read iter.Seq2[*jetstream.Commit, error]
		}{
			{"history", r.History(t.Context(), "account", "a1", jetstream.Range{After: after})},
			{"to", r.History(t.Context(), "account", "a1", jetstream.Range{After: after, To: head.Sequence, From: jetstream.Replica})},
			{"backwards", r.History(t.Context(), "account", "a1", jetstream.Range{After: after, Backwards: true})},
			{"scan", r.Scan(t.Context(), "account", jetstream.Range{After: after})},
			{"as of", r.History(t.Context(), "account", "a1", jetstream.Range{After: after, AsOf: last.Time})},
			{"version", r.History(t.Context(), "account", "a1", jetstream.Range{After: after, UpToVersion: head.Version})},
		}
		// Two of them each time, from each server in turn.
		for _, k := range []int{i / len(readers), i/len(readers) + 3} {
			c := reads[k%len(reads)]
			commits, err := collect(c.read)
			got := sequences(commits)
			if c.name == "backwards" {
				slices.Reverse(got)
			}
			if err != nil || !slices.Equal(got, tail) {
				t.Fatalf("%s: %v, %v, acknowledged are %v", c.name, got, err, tail)
			}
		}
		// The decision that a load leads to is not refused for a reason of the load's.
		if i%50 == 49 {
			if head, err = r.Append(t.Context(), write("a1", "", last.Head)); err != nil {
				t.Fatal(err)
			}
			all = append(all, head.Sequence)
		}
	}
	t.Logf("%d of %d reads of a replica were old", stale, rounds)
}
