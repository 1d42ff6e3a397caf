package jetstream

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
)

// UnknownPolicy is what a reader does with an event that its schema lacks.
type UnknownPolicy uint8

// The policies.
const (
	// StopOnUnknown returns an [*UnknownEventError]: the program is older than the
	// writer, and what it does not know it must not count as done. The default.
	StopOnUnknown UnknownPolicy = iota
	// SkipUnknown leaves the event out, and keeps those that it was stored with. For
	// readers that miss nothing by it.
	SkipUnknown
	// ParkUnknown lets the events of the aggregate wait, from this one on, until a
	// person resumes them, and goes on with the other aggregates. For reactors and
	// gateways; to a [Decoder] it is [StopOnUnknown].
	ParkUnknown
)

// Valid tells whether p is one of the policies.
func (p UnknownPolicy) Valid() bool { return p <= ParkUnknown }

// String is the policy's name.
func (p UnknownPolicy) String() string {
	switch p {
	case StopOnUnknown:
		return "stop"
	case SkipUnknown:
		return "skip"
	case ParkUnknown:
		return "park"
	}
	return fmt.Sprintf("policy(%d)", uint8(p))
}

// Decoder turns commits into typed events. It is immutable and may be shared.
type Decoder struct {
	schemas map[string]*Schema
	policy  UnknownPolicy
}

// NewDecoder makes a decoder for the events of the schemas. Commits of other
// aggregate types have no events for it. Returns the schemas' mistakes, joined.
func NewDecoder(policy UnknownPolicy, schemas ...*Schema) (*Decoder, error) {
	d := &Decoder{schemas: map[string]*Schema{}, policy: policy}
	var errs []error
	if !policy.Valid() {
		errs = append(errs, &InvalidError{Field: "unknown policy", Value: policy.String(), Reason: "is not known"})
	}
	for _, s := range schemas {
		if s == nil {
			errs = append(errs, errors.New("a schema is nil"))
			continue
		}
		if other := d.schemas[s.Type()]; other != nil && other != s {
			errs = append(errs, fmt.Errorf("two schemas for aggregate type %q", s.Type()))
		}
		d.schemas[s.Type()] = s
		errs = append(errs, s.Err())
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return d, nil
}

// Types lists the aggregate types, sorted.
func (d *Decoder) Types() []string {
	types := make([]string, 0, len(d.schemas))
	for t := range d.schemas {
		types = append(types, t)
	}
	slices.Sort(types)
	return types
}

// Knows tells whether commits of the aggregate type have events for the decoder.
func (d *Decoder) Knows(typ string) bool { return d.schemas[typ] != nil }

// Events returns the commit's events, upcast. Errors are those of
// [Schema.Decode].
func (d *Decoder) Events(s Positions, c *Commit) ([]Recorded, error) {
	schema := d.schemas[c.Type]
	if schema == nil || c.Events() == 0 {
		return nil, nil
	}
	out := make([]Recorded, 0, c.Events())
	first := c.Version - uint64(c.Events()) //nolint:gosec // a length
	i := 0
	for k := range c.Decisions {
		dec := &c.Decisions[k]
		for _, e := range dec.Events {
			events, err := schema.Decode(e)
			if err != nil {
				if d.policy == SkipUnknown && errors.Is(err, ErrUnknownEvent) {
					i++
					continue
				}
				return nil, fmt.Errorf("%s %q version %d: %w", c.Type, c.ID, first+uint64(i)+1, err)
			}
			id := c.EventID(i)
			for j, event := range events {
				m := Meta{
					Type: c.Type, ID: c.ID, EventID: id, Name: schema.CurrentName(e.Name),
					Version: first + uint64(i) + 1, Position: s.Position(c.Sequence), Time: dec.Time, StoredAt: c.Time,
					Correlation: dec.CorrelationID(), Causation: dec.CausationID(), TraceParent: dec.TraceParent,
					Metadata: dec.Metadata,
				}
				if e.Version < schema.byName[m.Name].version {
					if n, ok := schema.NameOf(reflect.TypeOf(event)); ok {
						m.Name = n
					}
				}
				if j > 0 {
					m.EventID = id + "." + strconv.Itoa(j)
				}
				if m.TraceParent == "" && k == 0 { // the header is the first decision's
					m.TraceParent = c.TraceParent
				}
				out = append(out, Recorded{Meta: m, Event: event})
			}
			i++
		}
	}
	return out, nil
}
