package jetstream

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/rossby-go/rossby/internal/codec"
)

// The keys of the payload's maps, the same in msgpack and JSON. They are short
// because every commit carries them.
const (
	keyDecisions   = "d"
	keyState       = "s"
	keyKind        = "k"
	keyID          = "i"
	keyEvent       = "e"
	keyStep        = "p"
	keyHash        = "h"
	keyOutcome     = "o"
	keyCode        = "c"
	keyReason      = "m"
	keyTime        = "t"
	keyCorrelation = "co"
	keyCausation   = "ca"
	keyTrace       = "tp"
	keyMetadata    = "md"
	keyEvents      = "ev"
	keyName        = "n"
	keyVersion     = "v"
	keyCodec       = "c"
	keyKeyRef      = "y"
	keyData        = "d"
	keyFingerprint = "f"
)

func encodePayload(c *Commit, cdc Codec) ([]byte, error) {
	if cdc == JSON {
		return encodeJSON(c)
	}
	size := 32
	for i := range c.Decisions {
		size += 96
		for j := range c.Decisions[i].Events {
			size += 32 + len(c.Decisions[i].Events[j].Data)
		}
	}
	if c.State != nil {
		size += 32 + len(c.State.Data)
	}
	b := make([]byte, 0, size)
	n := 1
	if c.State != nil {
		n++
	}
	b = codec.AppendMap(b, n)
	b = codec.AppendString(b, keyDecisions)
	b = codec.AppendArray(b, len(c.Decisions))
	for i := range c.Decisions {
		b = appendDecision(b, &c.Decisions[i])
	}
	if s := c.State; s != nil {
		b = codec.AppendString(b, keyState)
		f := newFields(b)
		f.text(keyFingerprint, s.Fingerprint)
		b = endData(f, s.Codec, s.KeyRef, s.Data)
	}
	return b, nil
}

// fields builds a map whose entries are written as they come; its head is set
// once their number is known, which is always below 16.
type fields struct {
	b    []byte
	head int
	n    byte
}

func newFields(b []byte) *fields { return &fields{b: append(b, 0), head: len(b)} }

func (f *fields) key(name string) {
	f.n++
	f.b = codec.AppendString(f.b, name)
}

func (f *fields) text(name, value string) {
	if value != "" {
		f.key(name)
		f.b = codec.AppendString(f.b, value)
	}
}

func (f *fields) number(name string, value int64) {
	if value != 0 {
		f.key(name)
		f.b = codec.AppendInt(f.b, value)
	}
}

func (f *fields) end() []byte {
	f.b[f.head] = 0x80 | f.n
	return f.b
}

func appendDecision(b []byte, d *Decision) []byte {
	f := newFields(b)
	f.number(keyKind, int64(d.Kind))
	if d.Kind == KindTrigger {
		f.text(keyID, d.Trigger.Subscriber)
		f.text(keyEvent, d.Trigger.EventID)
		f.text(keyStep, d.Trigger.Step)
	} else {
		f.text(keyID, d.CommandID)
	}
	if len(d.BodyHash) > 0 {
		f.key(keyHash)
		f.b = codec.AppendBytes(f.b, d.BodyHash)
	}
	f.number(keyOutcome, int64(d.Outcome))
	f.text(keyCode, d.Code)
	f.text(keyReason, strings.ToValidUTF8(d.Reason, "\uFFFD"))
	f.number(keyTime, micros(d.Time))
	f.text(keyCorrelation, d.Correlation)
	f.text(keyCausation, d.Causation)
	f.text(keyTrace, d.TraceParent)
	if len(d.Metadata) > 0 {
		f.key(keyMetadata)
		f.b = codec.AppendMap(f.b, len(d.Metadata))
		for _, k := range slices.Sorted(maps.Keys(d.Metadata)) {
			f.b = codec.AppendString(codec.AppendString(f.b, k), d.Metadata[k])
		}
	}
	if len(d.Events) > 0 {
		f.key(keyEvents)
		f.b = codec.AppendArray(f.b, len(d.Events))
		for i := range d.Events {
			e := &d.Events[i]
			g := newFields(f.b)
			g.text(keyName, e.Name)
			if e.Version > 1 {
				g.number(keyVersion, int64(e.Version))
			}
			f.b = endData(g, e.Codec, e.KeyRef, e.Data)
		}
	}
	return f.end()
}

// endData writes the fields that events and states share.
func endData(f *fields, cdc Codec, keyRef string, data []byte) []byte {
	if cdc != Msgpack {
		f.text(keyCodec, cdc.String())
	}
	f.text(keyKeyRef, keyRef)
	f.key(keyData)
	f.b = codec.AppendBytes(f.b, data)
	return f.end()
}

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}

func decodePayload(data []byte, c *Commit, cdc Codec, room *room) error {
	if cdc == JSON {
		return decodeJSON(data, c)
	}
	r := codec.NewReader(data)
	for range r.Map() {
		switch string(r.Bytes()) {
		case keyDecisions:
			n := r.Array()
			if n > MaxDecisions {
				return errTooManyDecisions
			}
			c.Decisions = room.decisions[:0]
			if n > len(room.decisions) {
				c.Decisions = make([]Decision, 0, min(n, allocAhead))
			}
			left := c.EventNames
			for range n {
				if r.Err() != nil {
					return r.Err()
				}
				c.Decisions = append(c.Decisions, Decision{})
				d := &c.Decisions[len(c.Decisions)-1]
				readDecision(r, d, left, room)
				left = left[len(d.Events):]
			}
		case keyState:
			room.state = State{}
			c.State = &room.state
			readState(r, c.State)
		default:
			r.Skip()
		}
		if r.Err() != nil {
			return r.Err()
		}
	}
	if r.Err() == nil && r.Rest() > 0 {
		return fmt.Errorf("%w: %d bytes after the commit", codec.ErrMalformed, r.Rest())
	}
	return checkPayload(c, r.Err())
}

var (
	errTooManyDecisions = fmt.Errorf("%w: more than %d decisions", codec.ErrMalformed, MaxDecisions)
	errTooManyEvents    = fmt.Errorf("%w: more events than the header names", codec.ErrMalformed)
)

// allocAhead bounds what is allocated because of a number that the data only
// promises.
const allocAhead = 16

func checkPayload(c *Commit, err error) error {
	if err != nil {
		return err
	}
	for i := range c.Decisions {
		if d := &c.Decisions[i]; d.Kind > KindTrigger || d.Outcome > OutcomeRejected {
			return fmt.Errorf("%w: a decision of kind %d with outcome %d", codec.ErrMalformed, d.Kind, d.Outcome)
		}
	}
	return nil
}

// readDecision reads a decision of at most as many events as there are names left:
// the header has named them all, so more need no memory.
func readDecision(r *codec.Reader, d *Decision, names []string, room *room) {
	var id string
	for range r.Map() {
		switch string(r.Bytes()) {
		case keyKind:
			d.Kind = Kind(small(r))
		case keyID:
			id = r.String()
		case keyEvent:
			d.Trigger.EventID = r.String()
		case keyStep:
			d.Trigger.Step = r.String()
		case keyHash:
			d.BodyHash = r.Bytes()
		case keyOutcome:
			d.Outcome = Outcome(small(r))
		case keyCode:
			d.Code = r.String()
		case keyReason:
			d.Reason = r.String()
		case keyTime:
			d.Time = fromMicros(r.Int())
		case keyCorrelation:
			d.Correlation = r.String()
		case keyCausation:
			d.Causation = r.String()
		case keyTrace:
			d.TraceParent = r.String()
		case keyMetadata:
			d.Metadata = readMetadata(r)
		case keyEvents:
			n := r.Array()
			if n > len(names) {
				r.Fail(errTooManyEvents)
				return
			}
			d.Events = room.events[:0]
			if n != 1 || len(names) != 1 || room.taken {
				d.Events = make([]EventData, 0, n)
			}
			room.taken = true
			for i := range n {
				if r.Err() != nil {
					return
				}
				d.Events = append(d.Events, readEvent(r, names[i]))
			}
		default:
			r.Skip()
		}
	}
	if d.Kind == KindTrigger {
		d.Trigger.Subscriber = id
	} else {
		d.CommandID = id
	}
}

func readMetadata(r *codec.Reader) map[string]string {
	n := r.Map()
	all := make(map[string]string, min(n, allocAhead))
	for range n {
		if r.Err() != nil {
			break
		}
		k := r.String()
		all[k] = r.String()
	}
	return all
}

// small reads a number of which only a few values mean something; others are
// caught by checkPayload.
func small(r *codec.Reader) uint8 {
	n := r.Int()
	if n < 0 || n > math.MaxUint8 {
		return math.MaxUint8
	}
	return uint8(n)
}

// readEvent reads an event that the header has, or should have, named.
func readEvent(r *codec.Reader, named string) EventData {
	e := EventData{Version: 1}
	for range r.Map() {
		switch string(r.Bytes()) {
		case keyName:
			if name := r.Bytes(); string(name) == named {
				e.Name = named
			} else {
				e.Name = string(name)
			}
		case keyVersion:
			n := r.Int()
			if n < 1 || n > math.MaxInt32 {
				r.Fail(fmt.Errorf("%w: event version %d", codec.ErrMalformed, n))
			}
			e.Version = int(n)
		case keyCodec:
			e.Codec = readCodec(r)
		case keyKeyRef:
			e.KeyRef = r.String()
		case keyData:
			e.Data = r.Bytes()
		default:
			r.Skip()
		}
	}
	return e
}

func readState(r *codec.Reader, s *State) {
	for range r.Map() {
		switch string(r.Bytes()) {
		case keyFingerprint:
			s.Fingerprint = r.String()
		case keyCodec:
			s.Codec = readCodec(r)
		case keyKeyRef:
			s.KeyRef = r.String()
		case keyData:
			s.Data = r.Bytes()
		default:
			r.Skip()
		}
	}
}

func readCodec(r *codec.Reader) Codec {
	cdc, err := codec.Parse(r.String())
	if err != nil {
		r.Fail(err)
	}
	return cdc
}
