package follow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/wire"
)

// recordFormat is the layout of the record's JSON.
const recordFormat = 1

// errorTextMax bounds a lane's error in the record.
const errorTextMax = 320

// errorTextShort is their bound in a record that would be too large with them.
const errorTextShort = 80

// record is the follower's one value on the server. It means: every followed
// event up to Position is done, except those of a listed lane from From to To.
type record struct {
	Format     int                   `json:"v"`
	Owner      string                `json:"owner"`
	Epoch      uint64                `json:"epoch"`
	Flush      uint64                `json:"flush"`
	Position   uint64                `json:"position"`
	Store      string                `json:"store"`
	Version    int                   `json:"version"`
	Definition string                `json:"definition"`
	Stream     string                `json:"stream,omitempty"`
	Paused     *Pause                `json:"paused,omitempty"`
	Replay     *Replay               `json:"replay,omitempty"`
	Lanes      map[string]laneRecord `json:"lanes,omitempty"`
}

// laneRecord is an unfinished lane. NotBefore and Since, in Unix milliseconds, are
// only hints for the next owner: nothing safe depends on wall clocks.
type laneRecord struct {
	From      uint64 `json:"from"`
	To        uint64 `json:"to"`
	Tries     int    `json:"tries,omitempty"`
	NotBefore int64  `json:"notBefore,omitempty"`
	Since     int64  `json:"since,omitempty"`
	Step      int    `json:"step,omitempty"`
	Parked    bool   `json:"parked,omitempty"`
	Error     string `json:"error,omitempty"`
}

// laneBytes estimates a lane's share of the encoded record, without the error.
func laneBytes(key string) int { return len(key) + 144 }

// recordMax is the largest record that the server takes, with room for headers.
func (c *Config) recordMax() int64 {
	if limit := c.Conn.MaxPayload(); limit > 0 {
		return limit - 1024
	}
	return 1<<20 - 1024
}

// encodeWithin shortens the lanes' errors, in the end to nothing, until the record
// is within the limit.
func (r *record) encodeWithin(lanes map[string]*lane, limit int64) []byte {
	var body []byte
	for _, text := range []int{errorTextMax, errorTextShort, 0} {
		if body = r.encode(lanes, text); int64(len(body)) <= limit {
			break
		}
	}
	return body
}

// encode writes the record without reflection: it is on the path of every flush
// and lists every lane that has work.
func (r *record) encode(lanes map[string]*lane, errorText int) []byte {
	size := 256
	for key := range lanes {
		size += laneBytes(key)
	}
	b := make([]byte, 0, size)
	b = append(b, `{"v":`...)
	b = strconv.AppendInt(b, recordFormat, 10)
	b = appendString(append(b, `,"owner":`...), r.Owner)
	b = strconv.AppendUint(append(b, `,"epoch":`...), r.Epoch, 10)
	b = strconv.AppendUint(append(b, `,"flush":`...), r.Flush, 10)
	b = strconv.AppendUint(append(b, `,"position":`...), r.Position, 10)
	b = appendString(append(b, `,"store":`...), r.Store)
	b = strconv.AppendInt(append(b, `,"version":`...), int64(r.Version), 10)
	b = appendString(append(b, `,"definition":`...), r.Definition)
	b = appendString(append(b, `,"stream":`...), r.Stream)
	b = appendJSON(b, `,"paused":`, r.Paused)
	b = appendJSON(b, `,"replay":`, r.Replay)
	b = append(b, `,"lanes":{`...)
	first := true
	for key, l := range lanes {
		if !first {
			b = append(b, ',')
		}
		first = false
		b = appendString(b, key)
		b = strconv.AppendUint(append(b, `:{"from":`...), l.from, 10)
		b = strconv.AppendUint(append(b, `,"to":`...), l.to, 10)
		if l.tries > 0 {
			b = strconv.AppendInt(append(b, `,"tries":`...), int64(l.tries), 10)
			if !l.since.IsZero() {
				b = strconv.AppendInt(append(b, `,"since":`...), l.since.UnixMilli(), 10)
			}
			if l.state == laneWaiting && !l.postponed {
				b = strconv.AppendInt(append(b, `,"notBefore":`...), l.notBefore.UnixMilli(), 10)
			}
		}
		if l.step > 0 {
			b = strconv.AppendInt(append(b, `,"step":`...), int64(l.step), 10)
		}
		if l.state == laneParked {
			b = append(b, `,"parked":true`...)
		}
		if text := clip(l.err, errorText); text != "" {
			b = appendString(append(b, `,"error":`...), text)
		}
		b = append(b, '}')
	}
	return append(b, `}}`...)
}

// appendJSON appends what is rarely there.
func appendJSON[T any](b []byte, key string, v *T) []byte {
	if v == nil {
		return b
	}
	data, err := json.Marshal(v)
	if err != nil {
		return b
	}
	return append(append(b, key...), data...)
}

// appendString appends s as a JSON string; subjects and ids need no escapes.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, err := json.Marshal(s)
			if err != nil {
				return append(b, `""`...)
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

func decodeRecord(m wire.Message) (record, error) {
	var r record
	if err := json.Unmarshal(m.Data, &r); err != nil {
		return r, fmt.Errorf("%w: revision %d: %w", ErrRecordFormat, m.Sequence, err)
	}
	if r.Format != recordFormat {
		return r, fmt.Errorf("%w: revision %d has format %d, known is %d",
			ErrRecordFormat, m.Sequence, r.Format, recordFormat)
	}
	return r, nil
}

// place is where a record is kept.
type place struct {
	conn   *nats.Conn
	stream string
	key    string
}

func placeOf(nc *nats.Conn, bucket, name string) place {
	return place{conn: nc, stream: "KV_" + bucket, key: "$KV." + bucket + "." + name}
}

// read returns the record and its revision as the leader has them. Without a
// record it returns [wire.ErrNotFound] and the revision a new one must expect.
func (p place) read(ctx context.Context) (record, uint64, error) {
	m, err := wire.LeaderLast(ctx, p.conn, p.stream, p.key)
	if err != nil {
		return record{}, 0, fmt.Errorf("read record: %w", err)
	}
	if op := m.Header["KV-Operation"]; len(op) > 0 {
		return record{}, m.Sequence, fmt.Errorf("read record: %s marker: %w", op[0], wire.ErrNotFound)
	}
	r, err := decodeRecord(m)
	return r, m.Sequence, err
}

// write puts the body if the record still has revision rev, and returns the new
// one.
func (p place) write(ctx context.Context, body []byte, rev uint64) (uint64, error) {
	msg := &nats.Msg{Subject: p.key, Data: body}
	ack, err := wire.Publish(ctx, p.conn, wire.Expect(msg, rev))
	if err != nil {
		return 0, fmt.Errorf("write record: %w", err)
	}
	return ack.Sequence, nil
}

// writeSure is write that settles an ambiguous answer by reading back. It
// returns false when another write came first.
func (p place) writeSure(ctx context.Context, r record, body []byte, rev uint64) (uint64, bool, error) {
	next, err := p.write(ctx, body, rev)
	if err == nil {
		return next, true, nil
	}
	got, at, readErr := p.read(ctx)
	switch {
	case readErr == nil && at > rev && got.Owner == r.Owner && got.Epoch == r.Epoch &&
		got.Flush == r.Flush && got.Version == r.Version:
		return at, true, nil
	case readErr == nil && at > rev, wire.IsWrongLastSequence(err):
		return 0, false, nil
	default:
		return 0, false, errors.Join(err, readErr)
	}
}

// check compares the record with the configuration; every error is final.
func (c *Config) check(r record) error {
	switch {
	case r.Store != c.StoreID:
		return fmt.Errorf("%w: record %q of bucket %q is of store %q, this is %q",
			ErrOtherStore, c.Name, c.Bucket, r.Store, c.StoreID)
	case r.Version > c.Version:
		return fmt.Errorf("%w: record %q has version %d, this instance is version %d: it is outdated, stop or update it",
			ErrNewerVersion, c.Name, r.Version, c.Version)
	case r.Version == c.Version && r.Definition != c.Definition:
		return fmt.Errorf("%w: %q version %d was recorded with definition %q, this instance has %q: "+
			"raise the version, or deploy what the version had",
			ErrOtherDefinition, c.Name, c.Version, r.Definition, c.Definition)
	}
	return nil
}

// lanesOf makes the lanes of a record anew; their events are still in the stream
// only.
func lanesOf(r record, now time.Time) map[string]*lane {
	lanes := make(map[string]*lane, len(r.Lanes))
	for key, lr := range r.Lanes {
		l := &lane{key: key, from: lr.From, to: lr.To, tries: lr.Tries, step: lr.Step, err: lr.Error, hole: true}
		if lr.Since > 0 {
			l.since = time.UnixMilli(lr.Since)
		}
		switch {
		case lr.Parked:
			l.state = laneParked
		case lr.NotBefore > 0:
			// Clocks may differ: never wait longer than a day for it.
			l.state = laneWaiting
			wait := min(max(time.UnixMilli(lr.NotBefore).Sub(now), 0), 24*time.Hour)
			l.notBefore = now.Add(wait)
		default:
			l.state = laneReady
		}
		lanes[key] = l
	}
	return lanes
}
