package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/jetstream"
)

// allowed is how many allocations an operation may cost beyond nats.go's own.
const allowed = 30

// beyond is a row of the allocations of one side over the other's.
func beyond(r *result, err error) (*result, error) {
	if err != nil {
		return nil, err
	}
	ours, raw := median(field(r.samples[0], allocs)), median(field(r.samples[1], allocs))
	out := &result{unit: "allocs", ours: max(ours-raw, 1), raw: allowed}
	out.notef("ours is what an operation allocates beyond nats.go, raw is what it may")
	out.notef("%.0f allocations, %.1f kB; nats.go %.0f, %.1f kB", ours, median(field(r.samples[0], size))/1000,
		raw, median(field(r.samples[1], size))/1000)
	return out, nil
}

func allocsAppend(ctx context.Context, e *env) (*result, error) {
	w, raw, err := e.bothWriters(ctx, writers, 1)
	if err != nil {
		return nil, err
	}
	return beyond(measure(ctx, e, e.plan(9, 200),
		contender{"ours", timed(turns(writers, w.append))}, contender{"raw", timed(turns(writers, raw.publish))}))
}

func allocsLoad(ctx context.Context, e *env) (*result, error) {
	const aggregates = 100
	if _, err := e.fill(ctx, 10*aggregates, aggregates); err != nil {
		return nil, err
	}
	repo, err := e.repository(1)
	if err != nil {
		return nil, err
	}
	subjects := e.subjects(storeName, aggregates)
	return beyond(measure(ctx, e, e.plan(9, 200),
		contender{"ours", timed(turns(aggregates, func(ctx context.Context, i int) error {
			_, err := repo.Load(ctx, aggregateID(i), aggregate.Follower())
			return err
		}))},
		contender{"raw", timed(turns(aggregates, func(_ context.Context, i int) error {
			_, err := directGet(e.rawNC, storeName, subjects[i])
			return err
		}))}))
}

// stateCost compares the files of two streams of the same events, with the state
// after each commit and without. The events are not alike.
func stateCost(ctx context.Context, e *env) (*result, error) {
	const aggregates = 100
	commits := e.scaled(50_000)
	sizes := map[bool]float64{}
	for _, carried := range []bool{true, false} {
		if err := compressing(ctx, e.nc, fmt.Sprint("store-", carried)); err != nil {
			return nil, err
		}
	}
	// What is compressed is decided when a server starts.
	if err := errors.Join(e.stopServer(), e.startServer(ctx)); err != nil {
		return nil, err
	}
	for _, carried := range []bool{true, false} {
		name := fmt.Sprint("store-", carried)
		store, err := jetstream.Open(ctx, e.nc, jetstream.Config{Name: name})
		if err != nil {
			return nil, err
		}
		heads := make([]jetstream.Head, aggregates)
		draw := rand.New(rand.NewPCG(1, 2)) // the same events on both sides
		text := func() string { return strconv.FormatUint(draw.Uint64(), 36) + strconv.FormatUint(draw.Uint64(), 36) }
		for k := range commits {
			i := k % aggregates
			c := credited{TransferID: text(), Description: "rent for " + text(), Cents: draw.Int64N(100_000)}
			event, err := accountEvents.Encode(c, store.Codec())
			if err != nil {
				return nil, err
			}
			w := jetstream.Write{
				Type: accountEvents.Type(), ID: aggregateID(i), After: heads[i],
				Decisions: []jetstream.Decision{{Time: jetstream.MicroTime(time.Now()), Events: []jetstream.EventData{event}}},
			}
			if carried {
				data, err := store.Codec().Encode(state{
					Owner: aggregateID(i), Title: "Savings", Cents: c.Cents * int64(k), LastTransfer: c.TransferID,
				})
				if err != nil {
					return nil, err
				}
				w.State = &jetstream.State{Fingerprint: "0123456789ab", Codec: store.Codec(), Data: data}
			}
			if heads[i], err = store.Append(ctx, w); err != nil {
				return nil, err
			}
		}
		before, err := e.uncompressed(ctx, name)
		if err != nil {
			return nil, err
		}
		sizes[carried] = float64(before) / float64(commits)
	}
	if err := e.stopServer(); err != nil {
		return nil, err
	}
	files := map[bool]float64{}
	for _, carried := range []bool{true, false} {
		part, err := compressed(e.home, fmt.Sprint("store-", carried), sizes[carried]*float64(commits))
		if err != nil {
			return nil, err
		}
		files[carried] = part * sizes[carried]
	}
	r := &result{unit: "B", ours: files[true], raw: files[false]}
	r.notef("files of the stream with S2, bytes a commit, with the state and without; events that are not alike")
	r.notef("before compression: %.0f with the state, %.0f without", sizes[true], sizes[false])
	return r, e.startServer(ctx)
}

// compressing makes a store whose files are compressed.
func compressing(ctx context.Context, nc *nats.Conn, name string) error {
	if _, err := jetstream.Open(ctx, nc, jetstream.Config{Name: name}); err != nil {
		return err
	}
	js, err := natsjs.New(nc)
	if err != nil {
		return err
	}
	stream, err := js.Stream(ctx, name)
	if err != nil {
		return err
	}
	cfg := stream.CachedInfo().Config
	cfg.Compression = natsjs.S2Compression
	_, err = js.UpdateStream(ctx, cfg)
	return err
}

// compressed is what compression leaves of a stream's messages, by the blocks that
// are compressed: the server does that once they are full.
func compressed(dir, stream string, before float64) (float64, error) {
	var after, plain float64
	files := os.DirFS(dir)
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Ext(name) != ".blk" || !strings.Contains(name, "/"+stream+"/") {
			return err
		}
		data, err := fs.ReadFile(files, name)
		if bytes.HasPrefix(data, []byte("cmp")) {
			after += float64(len(data))
		} else {
			plain += float64(len(data))
		}
		return err
	})
	if err != nil || before <= plain || after == 0 {
		return 1, err
	}
	return after / (before - plain), nil
}

// memory is what a server and a verification need for each of a million aggregates.
func memory(ctx context.Context, e *env) (*result, error) {
	aggregates := e.scaled(1_000_000)
	empty, err := e.servers[0].heap()
	if err != nil {
		return nil, err
	}
	if _, err := e.fill(ctx, aggregates, aggregates); err != nil {
		return nil, err
	}
	filled, err := e.servers[0].heap()
	if err != nil {
		return nil, err
	}
	if err := e.stopServer(); err != nil {
		return nil, err
	}
	if err := e.startServer(ctx); err != nil {
		return nil, err
	}
	started, err := e.servers[0].heap()
	if err != nil {
		return nil, err
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	v := jetstream.Verification{Progress: func(p jetstream.Verified) {
		if p.Commits%uint64(max(aggregates/5, 1000)) == 0 {
			runtime.GC()
			runtime.ReadMemStats(&after)
		}
	}}
	for damage, err := range e.store.Verify(ctx, v) {
		if err == nil {
			err = damage
		}
		return nil, err
	}
	each := func(n int64) float64 { return float64(n) / float64(aggregates) }
	r := &result{unit: "B", ours: max(each(started-empty), 1), raw: bytesAnAggregate}
	r.notef("ours is the server's heap after a start, less that of an empty one, for each of %d aggregates; "+
		"raw is what it may be", aggregates)
	r.notef("server: empty %d MB, after %d appends %d MB, started again %d MB",
		empty>>20, aggregates, filled>>20, started>>20)
	if after.HeapAlloc > before.HeapAlloc {
		held := int64(after.HeapAlloc - before.HeapAlloc) //nolint:gosec // a heap
		r.notef("Store.Verify of all of them holds %.0f B for each", each(held))
	}
	return r, nil
}

// bytesAnAggregate is what an aggregate may cost a server in memory: its subject
// and what is kept with it.
const bytesAnAggregate = 400
