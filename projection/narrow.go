package projection

import (
	"strings"

	"github.com/nats-io/nats.go"
)

// narrowing decides who leaves out the events of other types: the server, by a filter
// on the consumer, or this program. The filter costs nothing where few messages match
// it. Where most do, the server looks, for each message, through the subjects that a
// block of the store has: with 200 aggregates a view was built half as fast (see
// docs/benchmarks.md).
type narrowing struct {
	// filter is the literal prefix with a wildcard of the one type that the view
	// follows; empty for several.
	filter string
	// every is after how many sequences it looks again.
	every uint64
	// narrow tells that the consumer has the filter.
	narrow bool

	from, wanted uint64
}

// narrowEvery is large beside what a change costs: the cursor is opened again.
const narrowEvery = 8192

// The filter comes when less than a quarter of the store concerns the view, and goes
// when more than half does: a share in between changes nothing.
const (
	narrowBelow = 4
	widenAbove  = 2
)

// restart counts from pos on.
func (n *narrowing) restart(pos uint64) { n.from, n.wanted = pos, 0 }

// note counts a message that was delivered.
func (n *narrowing) note(msg *nats.Msg) {
	if n.filter != "" && strings.HasPrefix(msg.Subject, n.filter[:len(n.filter)-1]) {
		n.wanted++
	}
}

// changes tells, now and then, whether it is better the other way from here on.
func (n *narrowing) changes(pos uint64) bool {
	passed := pos - n.from
	if n.filter == "" || passed < n.every {
		return false
	}
	was := n.narrow
	n.narrow = n.wanted*narrowBelow < passed || n.narrow && n.wanted*widenAbove <= passed
	n.restart(pos)
	return n.narrow != was
}
