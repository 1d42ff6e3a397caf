package jetstream

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/mutate"
	"github.com/rossby-go/rossby/internal/wire"
)

// FormatVersion is the version of the stored format that this package writes.
// docs/format.md specifies it.
const FormatVersion = 1

// The headers of a commit.
const (
	headerCommit      = "Rossby-Commit"
	headerChain       = "Rossby-Chain"
	headerEvents      = "Rossby-Events"
	headerFormat      = "Rossby-Format"
	headerOrigin      = "Rossby-Origin"
	headerTx          = "Rossby-Tx"
	headerOriginTx    = "Rossby-Origin-Tx"
	headerContentType = "Content-Type"
	headerTrace       = "traceparent"
	headerExpected    = nats.ExpectedLastSubjSeqHdr
)

const formatText = "1"

const (
	contentMsgpack = "application/msgpack"
	contentJSON    = "application/json"
)

// maxHeader bounds the text of one header, well below the server's 64 KiB for
// all of them.
const maxHeader = 32 << 10

// encodeCommit builds the message of a commit. What depends on the place stands
// in the headers; the payload can be copied byte for byte.
func encodeCommit(subject string, c *Commit, cdc Codec) (*nats.Msg, error) {
	payload, err := encodePayload(c, cdc)
	if err != nil {
		return nil, err
	}
	names := strings.Join(c.EventNames, ",")
	if len(names) > maxHeader {
		return nil, &InvalidError{
			Field: "events", Value: strconv.Itoa(len(c.EventNames)),
			Reason: fmt.Sprintf("have names of more than %d bytes together in one commit", maxHeader),
		}
	}
	h := make(nats.Header, 8)
	values := make([]string, 0, 9) // one allocation for all of them
	set := func(name, value string) {
		values = append(values, value)
		h[name] = values[len(values)-1 : len(values) : len(values)]
	}
	set(headerCommit, c.CommitID)
	set(headerChain, chainText(c))
	if names != "" {
		set(headerEvents, names)
	}
	set(headerFormat, formatText)
	if cdc == JSON {
		set(headerContentType, contentJSON)
	} else {
		set(headerContentType, contentMsgpack)
	}
	if !mutate.On(mutate.Unguarded) {
		set(headerExpected, strconv.FormatUint(c.PreviousSequence, 10))
	}
	if c.TraceParent != "" {
		set(headerTrace, c.TraceParent)
	}
	if o := c.Origin; o != nil {
		set(headerOrigin, originText(o))
	}
	if t := c.Tx; t != nil {
		set(headerTx, fmt.Sprintf("%s %d/%d", t.ID, t.Index, t.Count))
	}
	return &nats.Msg{Subject: subject, Header: h, Data: payload}, nil
}

func chainText(c *Commit) string {
	prev := c.Previous
	if prev == "" {
		prev = "-"
	}
	b := make([]byte, 0, 64)
	b = strconv.AppendUint(b, c.Ordinal, 10)
	b = append(b, ' ')
	b = strconv.AppendUint(b, c.Version, 10)
	b = append(b, ' ')
	return string(append(b, prev...))
}

// Decode reads a commit from a message of the store's stream, however it was
// fetched. Any message gives a commit or a [*FormatError], never a panic. The
// commit shares the message's data. The genesis is no commit: see [IsGenesis].
func Decode(m *Message) (*Commit, error) {
	room := new(room)
	c := &room.commit
	if err := decodeHeaders(m, c, room); err != nil {
		return nil, err
	}
	var cdc Codec
	switch ct := header(m.Header, headerContentType); ct {
	case contentMsgpack:
		cdc = Msgpack
	case contentJSON:
		cdc = JSON
	default:
		return nil, formatError(m, fmt.Sprintf("content type %q is not known", ct), nil)
	}
	if err := decodePayload(m.Data, c, cdc, room); err != nil {
		return nil, formatError(m, "payload", err)
	}
	i := 0
	for _, d := range c.Decisions {
		for _, e := range d.Events {
			if i >= len(c.EventNames) || c.EventNames[i] != e.Name {
				return nil, formatError(m, "its header names other events than its payload holds", nil)
			}
			i++
		}
	}
	if i != len(c.EventNames) {
		return nil, formatError(m, "its header names more events than its payload holds", nil)
	}
	if uint64(i) > c.Version || c.Ordinal == 1 && uint64(i) != c.Version {
		return nil, formatError(m, fmt.Sprintf("its version %d does not fit its %d events", c.Version, i), nil)
	}
	return c, nil
}

// room is what nearly every commit needs, in one allocation: one decision with one
// event, and a state.
type room struct {
	commit    Commit
	names     [1]string
	decisions [1]Decision
	events    [1]EventData
	state     State
	// taken tells that events is in use, or may be: a payload may repeat itself.
	taken bool
}

// IsGenesis tells whether the message is the store's first, which describes the
// store and belongs to no aggregate.
func IsGenesis(m *Message) bool { return strings.HasSuffix(m.Subject, genesisSuffix) }

// EventNames are the wire names of a message's events, from its header alone.
// They cost a fraction of [Decode].
func EventNames(m *Message) []string { return splitNames(header(m.Header, headerEvents)) }

func splitNames(text string) []string {
	if text == "" {
		return nil
	}
	if strings.IndexByte(text, ',') < 0 {
		return []string{text}
	}
	return strings.Split(text, ",")
}

func decodeHeaders(m *Message, c *Commit, room *room) error {
	format, flags, _ := strings.Cut(header(m.Header, headerFormat), " ")
	if format != formatText {
		return formatError(m, fmt.Sprintf("format version %q: this program reads version %s", format, formatText), nil)
	}
	if flags != "" {
		return formatError(m, fmt.Sprintf("it needs %q, which this program does not understand", flags), nil)
	}
	var ok bool
	if c.Type, c.ID, ok = splitSubject(m.Subject); !ok {
		return formatError(m, "the subject is not that of an aggregate", nil)
	}
	c.CommitID = header(m.Header, headerCommit)
	if !token(c.CommitID) || strings.Contains(c.CommitID, ".") {
		return formatError(m, fmt.Sprintf("commit id %q", c.CommitID), nil)
	}
	if err := parseChain(header(m.Header, headerChain), c); err != nil {
		return formatError(m, "chain", err)
	}
	prev := header(m.Header, headerExpected)
	if c.unguarded = prev == ""; !c.unguarded {
		var err error
		if c.PreviousSequence, err = strconv.ParseUint(prev, 10, 64); err != nil {
			return formatError(m, "expected sequence", err)
		}
	}
	c.Sequence, c.Time = m.Sequence, m.Time.UTC()
	if names := header(m.Header, headerEvents); names != "" && strings.IndexByte(names, ',') < 0 {
		room.names[0] = names
		c.EventNames = room.names[:]
	} else {
		c.EventNames = splitNames(names)
	}
	c.TraceParent = header(m.Header, headerTrace)
	if text := header(m.Header, headerOrigin); text != "" {
		if err := parseOrigin(text, c); err != nil {
			return formatError(m, "origin", err)
		}
	}
	if text := header(m.Header, headerTx); text != "" {
		if err := parseTx(text, c); err != nil {
			return formatError(m, "transaction", err)
		}
	}
	return nil
}

func parseTx(text string, c *Commit) error {
	id, place, _ := strings.Cut(text, " ")
	index, count, _ := strings.Cut(place, "/")
	i, err1 := strconv.Atoi(index)
	n, err2 := strconv.Atoi(count)
	if err1 != nil || err2 != nil || !token(id) || i < 1 || i > n || n > wire.MaxBatch {
		return fmt.Errorf("%q is not <id> <i>/<n> with n up to %d", text, wire.MaxBatch)
	}
	c.Tx = &Tx{ID: id, Index: i, Count: n}
	return nil
}

func parseChain(text string, c *Commit) error {
	ordinal, rest, _ := strings.Cut(text, " ")
	version, prev, found := strings.Cut(rest, " ")
	if !found {
		return fmt.Errorf("%q has not three parts", text)
	}
	var err error
	if c.Ordinal, err = strconv.ParseUint(ordinal, 10, 64); err != nil {
		return err
	}
	if c.Version, err = strconv.ParseUint(version, 10, 64); err != nil {
		return err
	}
	if c.Ordinal == 0 || (prev == "-") != (c.Ordinal == 1) {
		return fmt.Errorf("%q: the first commit, and no other, has ordinal 1 and no previous one", text)
	}
	if prev != "-" {
		if !token(prev) || strings.Contains(prev, ".") {
			return fmt.Errorf("%q: the previous commit's id is none", text)
		}
		c.Previous = prev
	}
	return nil
}

func parseOrigin(text string, c *Commit) error {
	parts := strings.Split(text, " ")
	if len(parts) != 3 {
		return fmt.Errorf("%q has not three parts", text)
	}
	if !token(parts[0]) {
		return fmt.Errorf("%q names no store", text)
	}
	seq, err := strconv.ParseUint(parts[1], 10, 64)
	if err != nil {
		return err
	}
	at, err := time.Parse(time.RFC3339Nano, parts[2])
	if err != nil {
		return err
	}
	c.Origin = &Origin{Store: parts[0], Sequence: seq, Time: at.UTC()}
	return nil
}

func formatError(m *Message, reason string, cause error) error {
	return &FormatError{Subject: m.Subject, Sequence: m.Sequence, Reason: reason, Cause: cause}
}

// header reads a header as it is spelt; nats.Header.Get would canonicalise the
// name first, for every commit.
func header(h nats.Header, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// eventNames lists the names of all events of the decisions, in order.
func eventNames(decisions []Decision) []string {
	if len(decisions) == 1 && len(decisions[0].Events) == 1 {
		return []string{decisions[0].Events[0].Name}
	}
	var names []string
	for _, d := range decisions {
		names = slices.Grow(names, len(d.Events))
		for _, e := range d.Events {
			names = append(names, e.Name)
		}
	}
	return names
}
