package jetstream

import (
	"context"
	"fmt"
	"strconv"

	"github.com/rossby-go/rossby/internal/mutate"
	"github.com/rossby-go/rossby/internal/wire"
)

// mutated is what a deliberate defect makes of a failed attempt: see package mutate.
func (p *pending) mutated(a *attempts, err error) (decided bool, result error) {
	switch {
	case !mutate.Enabled:
	case mutate.On(mutate.AckBeforeCommit) && a.open:
		p.stored(p.commits[len(p.commits)-1].PreviousSequence + 1)
		return true, nil
	case mutate.On(mutate.TimeoutIsFailure) && a.open:
		return true, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return false, nil
}

// follow lets a commit follow the one that came before it.
func (p *pending) follow(err error) bool {
	actual := actualSequence(err)
	if len(p.msgs) > 1 || actual == 0 {
		return false
	}
	p.commits[0].PreviousSequence = actual
	p.msgs[0].Header.Set(headerExpected, strconv.FormatUint(actual, 10))
	return true
}

// oneByOne is a transaction that is none.
func (p *pending) oneByOne(ctx context.Context) (ack wire.Ack, err error) {
	for _, m := range p.msgs {
		if ack, err = wire.Publish(ctx, p.store.nc, m); err != nil {
			return ack, err
		}
	}
	ack.Count = len(p.msgs)
	return ack, nil
}
