package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/rossby-go/rossby/projection"
)

// queryKeys is how many keys the view has that is read.
const queryKeys = 1000

// readView lets a view of the rows below catch up, ends its updater, and opens it.
func readView(
	ctx context.Context, e *env, read func(r *projection.Reader[accountView], keys int) (*result, error),
) (*result, error) {
	keys := e.scaled(queryKeys)
	if _, err := e.fill(ctx, 5*keys, keys); err != nil {
		return nil, err
	}
	last, err := e.store.LastPosition(ctx)
	if err != nil {
		return nil, err
	}
	updater, err := projection.NewUpdater(e.store, definition("query"), projection.UpdaterConfig{
		OnStop: projection.ReturnWhenStopped,
	})
	if err != nil {
		return nil, err
	}
	uctx, stop := context.WithCancel(ctx)
	ran := make(chan error, 1)
	go func() { ran <- updater.Run(uctx) }()
	cfg := projection.ReaderConfig{OpenWait: time.Minute, Wait: time.Minute}
	reader, err := projection.NewReader[accountView](ctx, e.nc, storeName, "query", cfg)
	if err == nil {
		_, err = reader.Position(ctx, projection.AtLeast(last))
	}
	stop()
	if err := errors.Join(err, <-ran); err != nil {
		return nil, err
	}
	return read(reader, keys)
}

const (
	queryStream = "KV_" + storeName + "_query"
	queryPrefix = "$KV." + storeName + "_query."
)

// readerGet gets one key from the view.
func readerGet(ctx context.Context, e *env) (*result, error) {
	return readView(ctx, e, func(r *projection.Reader[accountView], keys int) (*result, error) {
		order := rand.Perm(keys)
		last, err := r.Position(ctx)
		if err != nil {
			return nil, err
		}
		get := func(opts ...projection.ReadOption) func(context.Context) error {
			return turns(keys, func(ctx context.Context, i int) error {
				v, err := r.Get(ctx, aggregateID(order[i]), opts...)
				if err == nil && v.Value.Events == 0 {
					err = fmt.Errorf("%s is empty", v.Key)
				}
				return err
			})
		}
		res, err := measure(ctx, e, e.plan(80, 200),
			contender{"ours", timed(get())},
			contender{"raw", timed(turns(keys, func(_ context.Context, i int) error {
				_, err := directGet(e.rawNC, queryStream, queryPrefix+"1."+aggregateID(order[i]))
				return err
			}))},
			contender{"AtLeast", timed(get(projection.AtLeast(last)))})
		if err == nil && e.only == "" {
			res.notef("raw is nc.Request on $JS.API.DIRECT.GET, without the checkpoint and nothing decoded; " +
				"AtLeast asks for a position that the view has")
		}
		return res, err
	})
}

// readerList lists all keys of the view, which one request can hold.
func readerList(ctx context.Context, e *env) (*result, error) {
	return readView(ctx, e, func(r *projection.Reader[accountView], keys int) (*result, error) {
		body, err := json.Marshal(map[string]any{"multi_last": []string{queryPrefix + "1.>"}})
		if err != nil {
			return nil, err
		}
		keys++ // and the one of the first commit, whose copies were filled in
		count := func(n int) error {
			if n != keys {
				return fmt.Errorf("%d of %d keys", n, keys)
			}
			return nil
		}
		p := e.plan(40, 5)
		res, err := measure(ctx, e, p,
			contender{"ours", timed(func(ctx context.Context) error {
				n := 0
				for _, err := range r.List(ctx, projection.ListOptions{}) {
					if err != nil {
						return err
					}
					n++
				}
				return count(n)
			})},
			contender{"raw", timed(func(context.Context) error {
				n, err := e.lastOfAll(body)
				return errors.Join(err, count(n))
			})})
		if err == nil && e.only == "" {
			res.notef("%d keys; raw is one request for the last message of each, nothing decoded", keys)
		}
		return res, err
	})
}

// lastOfAll asks the view's bucket for several messages at once and counts them.
func (e *env) lastOfAll(body []byte) (n int, err error) {
	inbox := e.rawNC.NewInbox()
	sub, err := e.rawNC.SubscribeSync(inbox)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, sub.Unsubscribe()) }()
	if err := e.rawNC.PublishRequest("$JS.API.DIRECT.GET."+queryStream, inbox, body); err != nil {
		return 0, err
	}
	for ; ; n++ {
		m, err := sub.NextMsg(time.Minute)
		if err != nil {
			return n, err
		}
		if m.Header.Get("Status") != "" {
			return n, nil
		}
	}
}

// localBound is what a read of a local view may cost, in nanoseconds.
const localBound = 200

// localGet gets one key from the view in memory.
func localGet(ctx context.Context, e *env) (*result, error) {
	return readView(ctx, e, func(r *projection.Reader[accountView], keys int) (*result, error) {
		local, err := projection.NewLocalView(ctx, r, projection.LocalConfig{})
		if err != nil {
			return nil, err
		}
		defer local.Close()
		ids := make([]string, keys)
		for i := range ids {
			ids[i] = aggregateID(i)
		}
		rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
		gets := e.scaled(200_000)
		var costs []float64
		for range 21 {
			begin := time.Now()
			for i := range gets {
				if v, err := local.Get(ctx, ids[i%len(ids)]); err != nil || v.Value.Events == 0 {
					return nil, errors.Join(err, fmt.Errorf("%s is empty", v.Key))
				}
			}
			costs = append(costs, float64(time.Since(begin).Nanoseconds())/float64(gets))
		}
		res := &result{ours: median(costs), raw: localBound, unit: "ns"}
		res.notef("%d keys in no order, %d gets at a time: %.0f to %.0f ns; raw is what it may cost",
			keys, gets, quantile(costs, 0), quantile(costs, 1))
		return res, nil
	})
}
