package follow_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/internal/wire"
)

// withTransactions makes the bench's stream take atomic batches.
func (b *bench) withTransactions() *bench {
	b.tb.Helper()
	until(b.tb, "the stream takes batches", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		s, err := b.js.Stream(ctx, b.stream)
		if err != nil {
			return false
		}
		cfg := s.CachedInfo().Config
		cfg.AllowAtomicPublish = true
		_, err = b.js.UpdateStream(ctx, cfg)
		return err == nil
	})
	return b
}

// transaction stores a message on each subject, all or none.
func (b *bench) transaction(id string, subjects ...string) uint64 {
	b.tb.Helper()
	msgs := make([]*nats.Msg, len(subjects))
	for i, subject := range subjects {
		msgs[i] = nats.NewMsg(subject)
		msgs[i].Header["Rossby-Tx"] = []string{fmt.Sprintf("%s %d/%d", id, i+1, len(subjects))}
	}
	var last uint64
	until(b.tb, "a transaction is stored", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		ack, err := wire.PublishBatch(ctx, b.nc, msgs)
		last = ack.Sequence
		return err == nil
	})
	return last
}

// TestTransactions: every position that is recorded or shown stands at the end of a
// transaction or outside of any, whatever the filter hides of them.
func TestTransactions(t *testing.T) {
	t.Parallel()
	for _, replicas := range []int{1, 3} {
		for _, filter := range []string{"", "t.a.>"} {
			t.Run(fmt.Sprintf("R%d-%d", replicas, len(filter)), func(t *testing.T) {
				t.Parallel()
				var url string
				if replicas == 1 {
					url = natstest.Run(t).URL()
				} else {
					url = strings.Join(natstest.RunCluster(t).URLs(), ",")
				}
				testTransactions(t, newBench(t, url, replicas).withTransactions(), filter)
			})
		}
	}
}

func testTransactions(t *testing.T, b *bench, filter string) {
	t.Helper()
	transactions := 120
	if testing.Short() {
		transactions = 40
	}
	var mu sync.Mutex
	var positions []uint64
	note := func(p uint64) {
		mu.Lock()
		defer mu.Unlock()
		positions = append(positions, p)
	}
	// Every write of the record passes by here.
	sub, err := b.nc.Subscribe("$KV."+b.bucket+".f", func(m *nats.Msg) {
		var r struct {
			Position uint64 `json:"position"`
		}
		if err := json.Unmarshal(m.Data, &r); err != nil {
			t.Error(err)
		}
		note(r.Position)
	})
	if err != nil {
		t.Fatal(err)
	}
	j := newJournal(t)
	cfg := b.config(j)
	cfg.Filter, cfg.FlushEvery, cfg.MaxUnrecorded = filter, time.Millisecond, 4
	f := start(t, cfg).active(t)
	f.caughtUp(t, b.publish("t.a.first")) // it reads
	var writers sync.WaitGroup
	writers.Go(func() {
		for i := range transactions {
			subjects := make([]string, 2+rand.N(10))
			for k := range subjects {
				subjects[k] = fmt.Sprintf("t.%c.%d", "ab"[rand.N(2)], k)
			}
			b.transaction(fmt.Sprint("tx", i), subjects...)
			note(f.Status().Position)
		}
	})
	writers.Go(func() {
		for i := range transactions {
			b.publish(fmt.Sprintf("t.%c.s%d", "ab"[i%2], i%5))
			note(f.Status().Position)
		}
	})
	writers.Wait()
	head := b.transaction("last", "t.a.1", "t.b.1")
	f.caughtUp(t, head)
	f.stop(t)
	if err := sub.Drain(); err != nil {
		t.Error(err)
	}

	ends := map[uint64]bool{0: true}
	followed := 0
	var s jetstream.Stream
	natstest.Retry(t, "the stream", func(ctx context.Context) (err error) {
		s, err = b.js.Stream(ctx, b.stream)
		return err
	})
	for seq := uint64(1); seq <= head; seq++ {
		var m *jetstream.RawStreamMsg
		natstest.Retry(t, "a message", func(ctx context.Context) error {
			var err error
			m, err = s.GetMsg(ctx, seq)
			return err
		})
		if index, count := wire.TxPlace(m.Header); index == count {
			ends[seq] = true
		}
		if filter == "" || strings.HasPrefix(m.Subject, "t.a.") {
			followed++
		}
	}
	mu.Lock()
	defer mu.Unlock()
	different := slices.Clone(positions)
	slices.Sort(different)
	if different = slices.Compact(different); len(different) < 10 {
		t.Errorf("only the positions %d were seen", different)
	}
	for _, p := range positions {
		if !ends[p] {
			t.Errorf("position %d stands within a transaction", p)
		}
	}
	if j.count() != followed || j.repeated() != 0 {
		t.Errorf("%d of %d events are done, %d repeated", j.count(), followed, j.repeated())
	}
	j.ordered()
}

// TestTransactionWithAHiddenEnd: what the filter hides is not waited for. The next
// heartbeat is minutes away.
func TestTransactionWithAHiddenEnd(t *testing.T) {
	t.Parallel()
	b := setup(t).withTransactions()
	j := newJournal(t)
	cfg := b.config(j)
	cfg.Filter, cfg.TTL = "t.a.>", time.Hour
	f := start(t, cfg).active(t)
	for i := range 3 {
		head := b.transaction(fmt.Sprint("tx", i), "t.b.1", "t.a.1", "t.b.2", "t.a.2", "t.b.3", "t.b.4")
		until(t, "the events are done", func() bool { return j.count() == 2*(i+1) })
		if p := f.Status().Position; p != head {
			t.Errorf("the position is %d, the transaction ends at %d", p, head)
		}
	}
}
