package main

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/projection"
)

// rebuildTurns is how often a view is rebuilt at each number of events.
const rebuildTurns = 3

// rebuild measures how long it takes to build a view anew beside the live one,
// from the command to the switch, and whether that grows with the events alone.
func rebuild(ctx context.Context, e *env) (*result, error) {
	most := e.scaled(1_000_000)
	if e.events > 0 {
		most = e.events
	}
	sizes := []int{most / 10, most / 10 * 3, most}
	f, err := e.newFiller(ctx, most/10)
	if err != nil {
		return nil, err
	}
	r := &result{unit: "us"}
	filled, views := 0, 0
	for n, size := range sizes {
		if err := f.add(ctx, size-filled, filled/10, size/10); err != nil {
			return nil, err
		}
		filled = size
		turns := rebuildTurns
		if n == len(sizes)-1 && e.events > 0 || e.short {
			turns = 1
		}
		var took []float64
		peak := int64(0)
		for range turns {
			views++
			name := "view-" + strconv.Itoa(views)
			rep, err := measured(ctx, "rebuilder", e.url, name, strconv.FormatUint(f.next, 10))
			if err != nil {
				return nil, err
			}
			took, peak = append(took, rep.Elapsed.Seconds()), max(peak, rep.Peak)
			_, err = e.checkView(ctx, name, f.counts[:size/10])
			if err := errors.Join(err, e.js.DeleteStream(ctx, "KV_"+storeName+"_"+name)); err != nil {
				return nil, err
			}
		}
		each := median(took) / float64(size) * 1e6
		if n == 0 {
			r.raw = each
		}
		r.ours = each
		r.notef("%d events of %d keys: %.2f s (median of %d), %.0f events a second, %d MB at most, each key checked",
			size, size/10, median(took), turns, float64(size)/median(took), peak>>20)
	}
	return r, nil
}

// rebuildOnce lets a view catch up, rebuilds it, and prints how long the latter
// took, as a child.
func rebuildOnce(url, view, last string) error {
	return runUpdater(url, view, last, func(ctx context.Context, nc *nats.Conn, _ time.Time) (time.Duration, error) {
		admin, err := projection.NewAdmin(nc, storeName, view)
		if err != nil {
			return 0, err
		}
		begin := time.Now()
		number, err := admin.Rebuild(ctx, projection.RebuildOptions{})
		if err != nil {
			return 0, err
		}
		// It switches as soon as the new generation has caught up.
		err = admin.Switch(ctx, number)
		return time.Since(begin), err
	})
}
