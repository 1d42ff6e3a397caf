package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/jetstream"
)

// scan reads the whole store, commit by commit.
func scan(ctx context.Context, e *env) (*result, error) {
	commits := e.scaled(200_000)
	if _, err := e.fill(ctx, commits, commits/10); err != nil {
		return nil, err
	}
	head, err := e.store.LastSequence(ctx)
	if err != nil {
		return nil, err
	}
	ours := func(ctx context.Context, _ int) (time.Duration, error) {
		begin, last := time.Now(), uint64(0)
		for c, err := range e.store.Scan(ctx, "", jetstream.Range{}) {
			if err != nil {
				return 0, err
			}
			last = c.Sequence
		}
		return time.Since(begin), reached64(last, head)
	}
	verify := func(ctx context.Context, _ int) (time.Duration, error) {
		begin, done := time.Now(), jetstream.Verified{}
		v := jetstream.Verification{
			Schemas: []*jetstream.Schema{accountEvents}, Progress: func(p jetstream.Verified) { done = p },
		}
		for damage, err := range e.store.Verify(ctx, v) {
			if err == nil {
				err = damage
			}
			return 0, err
		}
		return time.Since(begin), reached64(done.Sequence, head)
	}
	p := e.plan(15, commits)
	p.ops, p.cold = commits, true
	r, err := measure(ctx, e, p,
		contender{"ours", ours},
		contender{"raw", func(ctx context.Context, _ int) (time.Duration, error) { return e.ordered(ctx, head) }},
		contender{"verify", verify})
	if err != nil {
		return nil, err
	}
	r.rate = true
	r.notef("raw is Consume of nats.go's ordered consumer, which decodes nothing; " +
		"verify is Store.Verify with the events' schema")
	return r, nil
}

func reached64(got, want uint64) error {
	if got != want {
		return fmt.Errorf("the read ended at %d, not at %d", got, want)
	}
	return nil
}

// ordered reads the store's stream with nats.go.
func (e *env) ordered(ctx context.Context, head uint64) (time.Duration, error) {
	begin := time.Now()
	consumer, err := e.js.OrderedConsumer(ctx, storeName, natsjs.OrderedConsumerConfig{})
	if err != nil {
		return 0, err
	}
	done := make(chan error, 1)
	consuming, err := consumer.Consume(func(m natsjs.Msg) {
		md, err := m.Metadata()
		if err != nil || md.Sequence.Stream == head {
			select {
			case done <- err:
			default:
			}
		}
	})
	if err != nil {
		return 0, err
	}
	defer consuming.Stop()
	select {
	case err := <-done:
		return time.Since(begin), err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// chain appends n commits to one aggregate without waiting for each, with or without
// the state, and returns its subject.
func (e *env) chain(ctx context.Context, i, n int, state bool) (string, error) {
	w, err := e.newWriter(ctx, i+1, 1)
	if err != nil {
		return "", err
	}
	if !state {
		w.state = nil
	}
	if err := w.append(ctx, i); err != nil {
		return "", err
	}
	template, err := e.capture(w.ids[i])
	if err != nil {
		return "", err
	}
	subject, err := e.store.Subject(accountEvents.Type(), w.ids[i])
	if err != nil {
		return "", err
	}
	head := w.heads[i]
	for k := 1; k < n; k++ {
		msg, seq := place(template, subject, &head), head.Sequence+1
		head.Sequence = seq
		if k%1000 != 999 && k != n-1 {
			err = e.rawNC.PublishMsg(msg)
		} else {
			err = e.stored(ctx, msg, seq)
		}
		if err != nil {
			return "", err
		}
	}
	return subject, nil
}

// loadEvents loads aggregates of many events, whose commits carry the state or not.
func loadEvents(ctx context.Context, e *env) (*result, error) {
	type loaded struct {
		events int
		state  bool
		id     string
	}
	var all []loaded
	for k, n := range []int{10, 1000, 100_000} {
		if e.short {
			n = max(n/100, 5)
		}
		for j, state := range []bool{true, false} {
			i := 10*k + 2*j
			if _, err := e.chain(ctx, i, n, state); err != nil {
				return nil, err
			}
			all = append(all, loaded{n, state, aggregateID(i)})
		}
	}
	load := func(ctx context.Context, repo *aggregate.Repository[state], l loaded) error {
		snap, err := repo.Load(ctx, l.id, aggregate.Follower())
		if err == nil && snap.Version != uint64(l.events) { //nolint:gosec // a count
			err = fmt.Errorf("%s is at version %d, not %d", l.id, snap.Version, l.events)
		}
		return err
	}
	// Those that carry the state, in turn: the cache has room for one.
	repo, err := e.statesRepository(neverKept)
	if err != nil {
		return nil, err
	}
	r, err := measure(ctx, e, e.plan(40, 200),
		contender{"ours", timed(turns(3, func(ctx context.Context, i int) error { return load(ctx, repo, all[2*i]) }))},
		contender{"raw", timed(turns(3, func(_ context.Context, i int) error {
			subject, err := e.store.Subject(accountEvents.Type(), all[2*i].id)
			if err == nil {
				_, err = directGet(e.rawNC, storeName, subject)
			}
			return err
		}))})
	if err != nil || e.only != "" {
		return r, err
	}
	for _, l := range all {
		var costs []float64
		for range 5 {
			fresh, err := e.statesRepository(neverKept) // an empty cache
			if err != nil {
				return nil, err
			}
			begin := time.Now()
			if err := load(ctx, fresh, l); err != nil {
				return nil, err
			}
			costs = append(costs, float64(time.Since(begin).Nanoseconds()))
		}
		how := "replayed"
		if l.state {
			how = "with state"
		}
		r.notef("%d events, %s: %s", l.events, how, strings.TrimSpace(r.figure(median(costs))))
	}
	return r, nil
}

// historyRow reads the history of an aggregate of 100 commits among those of others.
func historyRow(ctx context.Context, e *env) (*result, error) {
	commits := e.scaled(200_000)
	aggregates := commits / 100
	if _, err := e.fill(ctx, commits, aggregates); err != nil {
		return nil, err
	}
	order := rand.Perm(aggregates)
	sequences := make([][]string, aggregates)
	history := func(ctx context.Context, i int) error {
		var read []string
		for c, err := range e.store.History(ctx, accountEvents.Type(), aggregateID(order[i]), jetstream.Range{}) {
			if err != nil {
				return err
			}
			read = append(read, fmt.Sprintf(`{"seq":%d}`, c.Sequence))
		}
		sequences[order[i]] = read
		return nil
	}
	for i := range aggregates {
		if err := history(ctx, i); err != nil {
			return nil, err
		}
	}
	r, err := measure(ctx, e, e.plan(40, 5),
		contender{"ours", timed(turns(aggregates, history))},
		contender{"raw", timed(turns(aggregates, func(_ context.Context, i int) error {
			for _, body := range sequences[order[i]] {
				if _, err := e.rawNC.Request("$JS.API.DIRECT.GET."+storeName, []byte(body), time.Minute); err != nil {
					return err
				}
			}
			return nil
		}))},
		contender{"batches of 4", timed(turns(aggregates, func(_ context.Context, i int) error {
			return e.batches(order[i], 4)
		}))},
		contender{"batch of 100", timed(turns(aggregates, func(_ context.Context, i int) error {
			return e.batches(order[i], 100)
		}))},
	)
	if err != nil || e.only != "" {
		return r, err
	}
	r.notef("%d commits of %d aggregates; raw is a direct get by sequence for each commit, one after the other, "+
		"with the sequences known and nothing decoded", commits, aggregates)
	return r, e.stalls(ctx, r, order)
}

// batches reads a history in pages of a batch get.
func (e *env) batches(i, n int) error {
	subject, err := e.store.Subject(accountEvents.Type(), aggregateID(i))
	if err != nil {
		return err
	}
	for from := "1"; ; {
		inbox := e.rawNC.NewInbox()
		sub, err := e.rawNC.SubscribeSync(inbox)
		if err != nil {
			return err
		}
		body := fmt.Sprintf(`{"seq":%s,"next_by_subj":%q,"batch":%d}`, from, subject, n)
		if err := e.rawNC.PublishRequest("$JS.API.DIRECT.GET."+storeName, inbox, []byte(body)); err != nil {
			return err
		}
		end := false
		for !end {
			m, err := sub.NextMsg(time.Minute)
			if err != nil {
				return err
			}
			if end = m.Header.Get("Status") != ""; !end {
				from = next(m.Header.Get(nats.JSSequence))
			} else if m.Header.Get("Status") != "204" || m.Header.Get("Nats-Num-Pending") == "0" {
				return sub.Unsubscribe()
			}
		}
		if err := sub.Unsubscribe(); err != nil {
			return err
		}
	}
}

// next is the number after a text's.
func next(text string) string {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return "" // the server refuses it
	}
	return strconv.FormatUint(n+1, 10)
}

// stalls notes the worst that an append waited for while histories were read from a
// server that had just started.
func (e *env) stalls(ctx context.Context, r *result, order []int) error {
	for _, how := range []struct {
		name string
		read func(i int) error
	}{
		{"nothing", func(int) error { return nil }},
		{"histories", func(i int) error {
			for _, err := range e.store.History(ctx, accountEvents.Type(), aggregateID(i), jetstream.Range{}) {
				if err != nil {
					return err
				}
			}
			return nil
		}},
		{"batches of 4", func(i int) error { return e.batches(i, 4) }},
		{"batches of 100", func(i int) error { return e.batches(i, 100) }},
	} {
		if err := e.stopServer(); err != nil {
			return err
		}
		if err := e.startServer(ctx); err != nil {
			return err
		}
		worst, n, err := e.appendWhile(ctx, func() error {
			for _, i := range order[:min(len(order), 20)] {
				if err := how.read(i); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		r.notef("worst append of %d while a cold server was asked for %s: %.1f ms", n, how.name, worst.Seconds()*1000)
	}
	return nil
}

// appendWhile appends until f returns, a thousand times at least, on a connection of
// its own.
func (e *env) appendWhile(ctx context.Context, f func() error) (worst time.Duration, n int, err error) {
	nc, err := nats.Connect(e.url, nats.Timeout(time.Minute))
	if err != nil {
		return 0, 0, err
	}
	defer nc.Close()
	done := make(chan error, 1)
	go func() { done <- f() }()
	subject := storeName + ".event.other.0.x" + strconv.FormatUint(rand.Uint64(), 10)
	for ended := false; !ended || n < 200; n++ {
		select {
		case err := <-done:
			if err != nil {
				return 0, 0, err
			}
			ended = true
		default:
		}
		begin := time.Now()
		if _, err := nc.RequestWithContext(ctx, subject, []byte("x")); err != nil {
			return 0, 0, err
		}
		worst = max(worst, time.Since(begin))
	}
	return worst, n, nil
}
