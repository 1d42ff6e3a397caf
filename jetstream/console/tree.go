package console

import (
	"context"
	"net/http"
	"strings"

	"github.com/rossby-go/rossby/jetstream"
)

// What a causation tree may cost: events that belong together are stored close to
// one another, but for deadlines.
const (
	treeSpan    = 1000
	treeSpanMax = 20_000
	treeNodes   = 300
)

// tree is what an event was caused by, and what that caused, by the order in the
// store. Who caused whom is in the events: their causation.
type tree struct {
	Correlation string  `json:"correlation,omitempty"`
	Nodes       []event `json:"nodes"`
	// From and To are the sequences that were searched; Complete tells that nothing
	// can lie beyond them.
	From     uint64 `json:"from"`
	To       uint64 `json:"to"`
	Complete bool   `json:"complete"`
	// Cut tells that there were more nodes than are shown.
	Cut bool `json:"cut,omitempty"`

	// causes are the ids of the events in it, and of the command that began it.
	causes map[string]bool
}

func (c *Console) getTree(r *http.Request) (any, error) {
	sequence, err := number("sequence", r.PathValue("sequence"))
	if err != nil {
		return nil, err
	}
	index, err := number("index", r.URL.Query().Get("index"))
	if err != nil {
		return nil, err
	}
	span, err := number("span", r.URL.Query().Get("span"))
	if err != nil {
		return nil, err
	}
	if span == 0 {
		span = treeSpan
	}
	return c.tree(r.Context(), sequence, index, min(span, treeSpanMax))
}

func (c *Console) tree(ctx context.Context, sequence, index, span uint64) (*tree, error) {
	commit, err := c.commitAt(ctx, sequence)
	if err != nil {
		return nil, err
	}
	events := eventsOf(commit, dataBytes)
	if index >= uint64(len(events)) {
		return nil, missing("the commit at %d has %d events, none at %d", sequence, len(events), index)
	}
	head, err := c.cfg.Store.LastSequence(ctx)
	if err != nil {
		return nil, err
	}
	begin := events[index]
	t := &tree{Correlation: begin.Correlation, Nodes: []event{}, From: sequence, To: head, causes: map[string]bool{}}
	rooted, err := c.ascend(ctx, t, &begin, span)
	if err != nil {
		return nil, err
	}
	if head-sequence > span {
		t.To = sequence + span
	}
	t.Complete = rooted && t.To == head
	for commit, err := range c.cfg.Store.Scan(ctx, "", jetstream.Range{After: t.From - 1, To: t.To}) {
		if err != nil {
			return nil, err
		}
		t.add(commit)
	}
	return t, nil
}

// ascend goes from an event to the one that caused it, up to the first, and tells
// whether that was found within the span.
func (c *Console) ascend(ctx context.Context, t *tree, e *event, span uint64) (bool, error) {
	t.causes[e.EventID] = true
	wanted := e.Causation
	lowest := e.Sequence - min(span, e.Sequence-1)
	for wanted != "" && wanted != e.CommandID && t.From > lowest {
		cause, _, isEvent := strings.Cut(wanted, ".")
		if !isEvent {
			break
		}
		found := false
		for commit, err := range c.cfg.Store.Scan(ctx, "", jetstream.Range{After: lowest - 1, To: t.From, Backwards: true}) {
			if err != nil {
				return false, err
			}
			t.From = commit.Sequence
			if commit.CommitID != cause {
				continue
			}
			for _, above := range eventsOf(commit, dataBytes) {
				if above.EventID == wanted {
					e, found = &above, true
				}
			}
			break
		}
		if !found {
			return lowest == 1, nil
		}
		t.causes[e.EventID] = true
		wanted = e.Causation
	}
	if e.CommandID != "" {
		t.causes[e.CommandID] = true
	}
	return true, nil
}

// add takes the commit's decisions that belong to the tree: their events, and those
// that were recorded as refusals.
func (t *tree) add(c *jetstream.Commit) {
	nodes := eventsOf(c, dataBytes)
	for i := range c.Decisions {
		if d := &c.Decisions[i]; d.Outcome == jetstream.OutcomeRejected {
			e := decided(c, d)
			e.EventID, e.Rejected, e.Reason, e.Version = c.CommitID, d.Code, d.Reason, c.Version
			nodes = append(nodes, e)
		}
	}
	for i := range nodes {
		n := &nodes[i]
		same := t.Correlation != "" && n.Correlation == t.Correlation
		if !same && !t.causes[n.Causation] && !t.causes[n.EventID] {
			continue
		}
		if len(t.Nodes) >= treeNodes {
			t.Cut = true
			return
		}
		if n.Rejected == "" {
			t.causes[n.EventID] = true
		}
		t.Nodes = append(t.Nodes, *n)
	}
}
