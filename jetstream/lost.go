package jetstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/protocol"
	"github.com/rossby-go/rossby/internal/wire"
)

// StoreLostError is a store that is not there though something of it is: its stream
// was deleted, or the server could not load it. Nothing was made, so that its files
// are not written over. Restore the stream; or delete what is left, too, to begin with
// an empty store. It matches [ErrStoreNotFound].
type StoreLostError struct {
	// Store is the store's name.
	Store string
	// Left are the streams of the store that are there, sorted: those of its views,
	// its followers, its timers, its aggregates' states.
	Left []string
}

// Error names the store and at most ten streams.
func (e *StoreLostError) Error() string {
	const most = 10
	left, more := e.Left, ""
	if len(left) > most {
		left, more = left[:most], fmt.Sprintf(" and %d more", len(e.Left)-most)
	}
	return fmt.Sprintf("store %q: its stream is not there, but %s%s: it was deleted, or the server could not load it; "+
		"restore it, or delete these streams, too, to begin with an empty store", e.Store, strings.Join(left, ", "), more)
}

// Is tells that it is an [ErrStoreNotFound].
func (e *StoreLostError) Is(target error) bool { return target == ErrStoreNotFound }

const streamNames = "$JS.API.STREAM.NAMES"

// checkNew returns a [*StoreLostError] when a store that is about to be made was there
// before. A store that another program has made meanwhile is none:
// [natsjs.ErrStreamNameAlreadyInUse] then.
func checkNew(ctx context.Context, js natsjs.JetStream, store string) error {
	var names []string
	err := wire.Watched(ctx, js.Conn(), func(subject string) bool { return subject == streamNames },
		func(ctx context.Context) error {
			list := js.StreamNames(ctx)
			for name := range list.Name() {
				if name == store || strings.HasPrefix(name, "KV_"+store+"_") || strings.HasPrefix(name, store+"__") {
					names = append(names, name)
				}
			}
			return list.Err()
		})
	if err != nil {
		return fmt.Errorf("ask which streams there are: %w", err)
	}
	if slices.Contains(names, store) {
		return natsjs.ErrStreamNameAlreadyInUse
	}
	var left []string
	for _, name := range names {
		used, err := inUse(ctx, js, store, name)
		if err != nil {
			return fmt.Errorf("ask whether stream %q is left of a store: %w", name, err)
		}
		if used {
			left = append(left, name)
		}
	}
	if len(left) > 0 {
		slices.Sort(left)
		return &StoreLostError{Store: store, Left: left}
	}
	return nil
}

// inUse tells whether a stream that is named like one of a store's holds something of
// it. Administrators make streams ahead; other programs have buckets of their own. One
// that the program may not look at is not counted.
func inUse(ctx context.Context, js natsjs.JetStream, store, name string) (used bool, err error) {
	err = wire.API(ctx, js.Conn(), name, func(ctx context.Context) error {
		stream, err := js.Stream(ctx, name)
		if err != nil {
			return err
		}
		used = stream.CachedInfo().State.Msgs > 0
		view, isView := strings.CutPrefix(name, "KV_"+store+"_")
		if !used || !isView || strings.HasPrefix(view, "_") {
			return nil
		}
		_, err = stream.GetLastMsgForSubject(ctx, protocol.ViewPointer(store, view))
		used = err == nil
		return err
	})
	switch {
	case errors.Is(err, natsjs.ErrMsgNotFound), errors.Is(err, natsjs.ErrStreamNotFound), wire.Denied(err):
		return false, nil
	default:
		return used, err
	}
}
