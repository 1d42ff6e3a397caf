package projection_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// fill stores one-event commits, interleaved over the aggregates, faster than
// appends would: it copies one commit's payload under made-up headers.
func (f *fixture) fill(events, ids int) {
	f.t.Helper()
	f.fillWith(credited{Cents: 1}, "credited", events, ids)
}

func (f *fixture) fillWith(event any, name string, events, ids int) {
	f.t.Helper()
	f.append("template", event)
	subject, _ := f.store.Subject("account", "template")
	m, err := wire.LeaderLast(patient(f.t), f.nc, f.store.Name(), subject)
	if err != nil {
		f.t.Fatal(err)
	}
	const window = 4000
	js, err := natsjs.New(f.nc, natsjs.WithPublishAsyncMaxPending(window), natsjs.WithPublishAsyncTimeout(5*time.Second))
	if err != nil {
		f.t.Fatal(err)
	}
	// What a leader that resigned has lost, or not acknowledged, is sent again.
	open := make([]natsjs.PubAckFuture, 0, window)
	settle := func() {
		f.t.Helper()
		for _, p := range open {
			select {
			case <-p.Ok():
			case err := <-p.Err():
				f.t.Logf("sent again: %v", err)
				natstest.Retry(f.t, "store what was lost", func(ctx context.Context) error {
					m := p.Msg()
					_, err := js.PublishMsg(ctx, &nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data})
					return err
				})
			}
		}
		open = open[:0]
	}
	format, content := m.Header["Rossby-Format"], m.Header["Content-Type"]
	previous := make([]string, ids)
	for i := range events {
		k, n := i%ids, i/ids+1
		subject, _ := f.store.Subject("account", id(k))
		commit := jetstream.NewID()
		prev := previous[k]
		if prev == "" {
			prev = "-"
		}
		previous[k] = commit
		msg := &nats.Msg{Subject: subject, Data: m.Data, Header: nats.Header{
			natsjs.MsgIDHeader: {commit},
			"Rossby-Commit":    {commit}, "Rossby-Chain": {fmt.Sprintf("%d %d %s", n, n, prev)},
			"Rossby-Events": {name}, "Rossby-Format": format, "Content-Type": content,
		}}
		p, err := js.PublishMsgAsync(msg, natsjs.WithStallWait(natstest.Patience))
		if err != nil {
			f.t.Fatal(err)
		}
		if open = append(open, p); len(open) == window {
			settle()
		}
	}
	settle()
	if f.last, err = f.store.LastPosition(patient(f.t)); err != nil {
		f.t.Fatal(err)
	}
}

// BenchmarkCatchUp compares how fast a new keyed view takes in a store with a raw
// pull consumer without acknowledgements, alternating. The size is set by
// ROSSBY_BENCH_EVENTS and ROSSBY_BENCH_KEYS.
func BenchmarkCatchUp(b *testing.B) {
	size := func(name string, n int) int {
		if v, err := strconv.Atoi(os.Getenv(name)); err == nil {
			return v
		}
		return n
	}
	events, keys := size("ROSSBY_BENCH_EVENTS", 50_000), size("ROSSBY_BENCH_KEYS", 5_000)
	url := os.Getenv("ROSSBY_BENCH_URL")
	if url == "" {
		url = natstest.Run(b).URL()
	}
	f := fixtureAt(b, url, 1)
	f.fill(events, keys)
	js, err := natsjs.New(f.nc)
	if err != nil {
		b.Fatal(err)
	}
	var raw, ours time.Duration
	b.ResetTimer()
	for i := range b.N {
		began := time.Now()
		f.pull(b, js, events)
		raw += time.Since(began)

		view := fmt.Sprintf("bench-%d", i)
		def := projection.NewKeyed(view, projection.On(accountEvents, func(a *account, e credited, _ jetstream.Meta) {
			a.Cents, a.Events = a.Cents+e.Cents, a.Events+1
		}))
		began = time.Now()
		up := start(b, f.store, def, projection.UpdaterConfig{})
		r := reader[account](b, f, view)
		ctx, cancel := context.WithTimeout(b.Context(), 5*time.Minute)
		e, err := r.Get(ctx, id(0), projection.AtLeast(f.last))
		cancel()
		ours += time.Since(began)
		if err != nil || e.Value.Events != (events+keys-1)/keys {
			b.Fatalf("%+v, %v", e, err)
		}
		if err := up.stop(); err != nil {
			b.Fatal(err)
		}
		if err := js.DeleteStream(b.Context(), "KV_"+f.store.Name()+"_"+view); err != nil {
			b.Fatal(err)
		}
	}
	per := func(d time.Duration) float64 { return float64(events) * float64(b.N) / d.Seconds() }
	b.ReportMetric(per(ours), "events/s")
	b.ReportMetric(per(raw), "raw/s")
	b.ReportMetric(raw.Seconds()/ours.Seconds(), "ratio")
	b.ReportMetric(0, "ns/op")
}

func (f *fixture) pull(b *testing.B, js natsjs.JetStream, events int) {
	b.Helper()
	c, err := js.CreateConsumer(b.Context(), f.store.Name(), natsjs.ConsumerConfig{
		AckPolicy: natsjs.AckNonePolicy, FilterSubject: f.store.SubjectFilter("account"), MemoryStorage: true,
	})
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan struct{})
	n := 0
	cc, err := c.Consume(func(natsjs.Msg) {
		if n++; n == events+1 {
			close(done)
		}
	}, natsjs.PullMaxMessages(10_000))
	if err != nil {
		b.Fatal(err)
	}
	<-done
	cc.Stop()
	<-cc.Closed()
}

// BenchmarkVisible measures the time from an acknowledged append until the view
// shows it, at rest.
func BenchmarkVisible(b *testing.B) {
	f := newFixture(b)
	start(b, f.store, accounts(), projection.UpdaterConfig{})
	r := reader[account](b, f, "accounts")
	f.append("a0", opened{})
	get(b, r, "a0", projection.AtLeast(f.last))
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		pos := f.append("a0", credited{Cents: 1})
		b.StartTimer()
		get(b, r, "a0", projection.AtLeast(pos))
	}
}

// BenchmarkFind measures searches of an index, of few and of many matches, beside
// a list of as many values, which needs no index. The size is set by
// ROSSBY_BENCH_KEYS.
func BenchmarkFind(b *testing.B) {
	keys := 5_000
	if v, err := strconv.Atoi(os.Getenv("ROSSBY_BENCH_KEYS")); err == nil {
		keys = v
	}
	f := newFixture(b)
	events := make([]any, 0, 100)
	for i := range keys {
		events = append(events, moved{From: id(i), To: id(i), Cents: int64(i)})
		if len(events) == cap(events) || i == keys-1 {
			f.append("x", events...)
			events = events[:0]
		}
	}
	def := accounts().Index("cents", byCents).
		Index("bucket", func(a account) []string { return []string{strconv.FormatInt(-a.Cents/20, 10)} })
	began := time.Now()
	up := start(b, f.store, def, projection.UpdaterConfig{})
	r := reader[account](b, f, "accounts")
	get(b, r, id(keys-1), projection.AtLeast(f.last))
	b.Logf("%d keys with two indexes made in %v", keys, time.Since(began))
	look := func(name string, o projection.FindOptions, index string, want int) {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				n := 0
				for _, err := range r.Find(b.Context(), index, o) {
					if n++; err != nil {
						b.Fatal(err)
					}
				}
				if n != want {
					b.Fatalf("%d found, wanted %d", n, want)
				}
			}
		})
	}
	look("Equal20", projection.FindOptions{Value: "7"}, "bucket", 20)
	look("TopOf"+strconv.Itoa(keys), projection.FindOptions{Reverse: true, Limit: 10}, "cents", 10)
	look("All", projection.FindOptions{}, "cents", keys)
	b.Run("List", func(b *testing.B) {
		for range b.N {
			for _, err := range r.List(b.Context(), projection.ListOptions{}) {
				if err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	if err := up.stop(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkVisibleIndexed is BenchmarkVisible for an event that changes an index.
func BenchmarkVisibleIndexed(b *testing.B) {
	f := newFixture(b)
	start(b, f.store, accounts().Index("cents", byCents), projection.UpdaterConfig{})
	r := reader[account](b, f, "accounts")
	f.append("a0", opened{})
	get(b, r, "a0", projection.AtLeast(f.last))
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		pos := f.append("a0", credited{Cents: 1})
		b.StartTimer()
		get(b, r, "a0", projection.AtLeast(pos))
	}
}
