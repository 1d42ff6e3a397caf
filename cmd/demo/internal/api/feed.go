package api

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/rossby-go/rossby/cmd/demo/internal/account"
	"github.com/rossby-go/rossby/cmd/demo/internal/customer"
	"github.com/rossby-go/rossby/cmd/demo/internal/transfer"
	"github.com/rossby-go/rossby/cmd/demo/internal/views"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// How the feed keeps pages up to date.
const (
	statusEvery  = time.Second
	tailEvery    = 60 * time.Millisecond
	tailBack     = 40
	tailMax      = 2000
	lingerFor    = 5 * time.Second
	retryFor     = 500 * time.Millisecond
	booksDivisor = 20
)

func newDecoder() (*jetstream.Decoder, error) {
	return jetstream.NewDecoder(jetstream.SkipUnknown, account.Events, customer.Events, transfer.Events)
}

// Run feeds the pages and keeps the newest transfers at hand until ctx ends. Then
// the pages' streams have ended, too.
func (a *API) Run(ctx context.Context) error {
	a.hub.open()
	defer a.hub.close()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { a.watchTransfers(ctx) })
	for ctx.Err() == nil {
		present, changed := a.hub.present()
		if present {
			a.attend(ctx)
			continue
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
	return nil
}

// attend feeds the pages until a while after the last has left.
func (a *API) attend(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for _, f := range []func(context.Context){a.tail, a.watchAccounts, a.watchStatus} {
		wg.Go(func() { f(ctx) })
	}
	for {
		present, changed := a.hub.present()
		var over <-chan time.Time
		if !present {
			over = time.After(lingerFor)
		}
		select {
		case <-ctx.Done():
			return
		case <-over:
			return
		case <-changed:
		}
	}
}

// tail reads the store's events from where it ends. It asks the stream, since who
// listens on its subjects hears of commits that are then refused.
func (a *API) tail(ctx context.Context) {
	var after uint64
	for ctx.Err() == nil {
		head, err := a.cfg.Store.LastSequence(ctx)
		if err == nil {
			if head < after || head > after+tailMax {
				next := head - min(head, tailBack)
				if after > 0 {
					a.hub.gap(next - min(next, after))
				}
				after = next
			}
			after, err = a.forward(ctx, after, head)
		}
		wait := tailEvery
		if err != nil {
			wait = retryFor
		}
		_ = pause(ctx, wait)
	}
}

// forward hands on the events up to a sequence, and returns how far it came.
func (a *API) forward(ctx context.Context, after, to uint64) (uint64, error) {
	if to <= after {
		return after, nil
	}
	for c, err := range a.cfg.Store.Scan(ctx, "", jetstream.Range{After: after, To: to}) {
		if err != nil {
			return after, err
		}
		events, err := a.decoder.Events(a.cfg.Store, c)
		if err != nil {
			a.log.WarnContext(ctx, "page: unreadable commit", "sequence", c.Sequence, "error", err)
		}
		for i := range events {
			e := &events[i]
			a.hub.event(liveEvent{sequence: c.Sequence, data: encode(pageEvent{
				Sequence: c.Sequence, Position: e.Position, Type: e.Type, ID: e.ID, Name: e.Name, Version: e.Version, Time: e.Time,
				Data: e.Event, EventID: e.EventID, Correlation: e.Correlation, Causation: e.Causation,
			})})
		}
		after = c.Sequence
	}
	return to, nil
}

// pageEvent is what a page is told of an event.
type pageEvent struct {
	Sequence    uint64             `json:"sequence"`
	Position    jetstream.Position `json:"position"`
	Type        string             `json:"type"`
	ID          string             `json:"id"`
	Name        string             `json:"name"`
	Version     uint64             `json:"version"`
	Time        time.Time          `json:"time"`
	Data        any                `json:"data"`
	EventID     string             `json:"eventId"`
	Correlation string             `json:"correlation,omitempty"`
	Causation   string             `json:"causation,omitempty"`
}

func (a *API) watchTransfers(ctx context.Context) {
	for ctx.Err() == nil {
		a.hub.transfersKnown(false)
		err := watch(ctx, a.cfg.TransferViews, func(c projection.Change[views.Transfer]) {
			switch c.Kind {
			case projection.Put:
				a.hub.transfer(c.Entry.Value)
			case projection.Ready:
				a.hub.transfersKnown(true)
			case projection.Reset:
				a.hub.transfersKnown(false)
			case projection.Delete: // transfers stay
			}
		})
		a.again(ctx, "transfers", err)
	}
}

func (a *API) watchAccounts(ctx context.Context) {
	for ctx.Err() == nil {
		reader, err := a.accounts(ctx)
		if err == nil {
			err = watch(ctx, reader, func(c projection.Change[Account]) {
				switch c.Kind {
				case projection.Put:
					a.hub.account(c.Entry.Value)
				case projection.Reset:
					a.hub.resetAccounts()
				case projection.Ready, projection.Delete: // accounts stay
				}
			})
		}
		a.again(ctx, "accounts", err)
	}
}

// watch follows a view until something is wrong.
func watch[V any](ctx context.Context, reader *projection.Reader[V], each func(projection.Change[V])) error {
	for c, err := range reader.Watch(ctx, projection.WatchOptions{}) {
		if err != nil {
			return err
		}
		each(c)
	}
	return nil
}

// again waits before a watch is begun anew.
func (a *API) again(ctx context.Context, view string, err error) {
	if ctx.Err() != nil {
		return
	}
	a.log.WarnContext(ctx, "page: watch of a view ended, beginning it anew", "view", view, "error", err)
	_ = pause(ctx, retryFor)
}

// watchStatus works out the status once for all pages.
func (a *API) watchStatus(ctx context.Context) {
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		limited, cancel := context.WithTimeout(ctx, statusEvery*3)
		s, err := a.status(limited, a.Books)
		cancel()
		if ctx.Err() == nil {
			a.hub.statusNow(statusData(s, err))
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// statusData is a status for pages, which also want to know what is wrong.
func statusData(s *Status, err error) json.RawMessage {
	if err == nil {
		return encode(s)
	}
	p := describe(err)
	if errors.Is(err, context.DeadlineExceeded) {
		p.Detail = "the servers do not answer"
	}
	return encode(map[string]any{"error": p.Detail, "code": p.Code})
}
