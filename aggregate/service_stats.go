package aggregate

import (
	"sync/atomic"
	"time"

	"github.com/rossby-go/rossby/internal/protocol"
)

// ServiceStats counts what a service did since it was made. Counters only grow.
// The service tells them to whoever asks for its statistics, too:
//
//	nats micro stats bank-account
type ServiceStats struct {
	// Taken are the commands that the service took, Busy those that it turned away.
	Taken uint64 `json:"taken"`
	Busy  uint64 `json:"busy"`
	// Failed are those answered with an error that is not the aggregate's decision:
	// invalid, unavailable, unknown, internal, contended. Refused are the others:
	// rejected, not found, exists, conflict.
	Failed  uint64 `json:"failed"`
	Refused uint64 `json:"refused"`
	// Overdue are those answered while their handler still ran.
	Overdue uint64 `json:"overdue"`
	// Waiting are those that wait or run now.
	Waiting int `json:"waiting"`
	// Lately is how long commands have taken lately, from their arrival: a moving
	// average.
	Lately time.Duration `json:"lately"`
}

type serviceCounters struct {
	taken, busy, failed, refused, overdue atomic.Uint64
}

// count counts an error reply.
func (c *serviceCounters) count(kind protocol.Kind) {
	switch kind {
	case protocol.KindRejected, protocol.KindNotFound, protocol.KindExists, protocol.KindConflict:
		c.refused.Add(1)
	default:
		c.failed.Add(1)
	}
}

// Stats is what the service has done.
func (s *Service) Stats() ServiceStats {
	c := &s.counters
	out := ServiceStats{
		Taken: c.taken.Load(), Busy: c.busy.Load(), Failed: c.failed.Load(), Refused: c.refused.Load(),
		Overdue: c.overdue.Load(),
	}
	if w := s.pool.Load(); w != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		out.Waiting, out.Lately = w.count, w.lately
	}
	return out
}
