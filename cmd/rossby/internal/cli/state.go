package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/protocol"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// stateRow is a state as it is shown: one that travels with a commit, or the newest of
// those that are kept in a bucket because they are too large for that.
type stateRow struct {
	Fingerprint string          `json:"fingerprint"`
	KeyRef      string          `json:"keyRef,omitempty"`
	Data        json.RawMessage `json:"data,omitempty"`
	Unreadable  string          `json:"unreadable,omitempty"`
	// Kept tells that it is kept in the bucket, Version that of the aggregate then.
	Kept    bool   `json:"kept,omitempty"`
	Version uint64 `json:"version,omitempty"`
}

func stateOf(c *jetstream.Commit) *stateRow {
	if c.State == nil {
		return nil
	}
	s := &stateRow{Fingerprint: c.State.Fingerprint, KeyRef: c.State.KeyRef, Version: c.Version}
	s.Data, s.Unreadable = readable(c.State.Codec, c.State.KeyRef, c.State.Data)
	return s
}

func (s *stateRow) text() string {
	switch {
	case s.KeyRef != "":
		return "(encrypted under " + oneLine(s.KeyRef) + ")"
	case s.Unreadable != "":
		return "(" + oneLine(s.Unreadable) + ")"
	default:
		return string(s.Data)
	}
}

// print says whose state it is, of a commit with a version.
func (s *stateRow) print(w io.Writer, version uint64) {
	switch {
	case !s.Kept:
		_, _ = fmt.Fprintf(w, "\nState after it: %s\n", s.text())
	case s.Version == version:
		_, _ = fmt.Fprintf(w, "\nState after it, kept beside the commits: %s\n", s.text())
	default:
		_, _ = fmt.Fprintf(w, "\nState at version %d, the newest that is kept beside the commits: %s\n", s.Version, s.text())
	}
}

// keptState is the state in the store's bucket of states that was written last for an
// aggregate, under whatever fingerprint, unless it is of a later version than the
// commit. It is nil when there is none, or none that may be read: the bucket is a cache.
func keptState(ctx context.Context, store *jetstream.Store, c *jetstream.Commit) (*stateRow, error) {
	m, err := wire.LeaderLast(ctx, store.Conn(), protocol.StateStream(store.Name()),
		protocol.StateSubject(store.Name(), c.Type, "*", c.ID))
	switch {
	case errors.Is(err, wire.ErrNotFound), errors.Is(err, nats.ErrNoResponders),
		wire.Number(err) == wire.CodeStreamNotFound, wire.Denied(err):
		return nil, nil //nolint:nilnil // there is none
	case err != nil:
		return nil, fmt.Errorf("state of %s/%s: %w", c.Type, c.ID, err)
	}
	version, ok := stateVersion(&m)
	if !ok || version > c.Version {
		return nil, nil //nolint:nilnil // there is none of this commit or of one before
	}
	parts := strings.Split(m.Subject, ".") // $KV.<bucket>.<type>.<fingerprint>.<id>
	s := &stateRow{Fingerprint: parts[3], Kept: true, Version: version}
	s.Data, s.Unreadable = readable(store.Codec(), "", m.Data)
	return s, nil
}

// stateVersion reads the version out of "<commit id> <sequence> <ordinal> <version>".
func stateVersion(m *wire.Message) (uint64, bool) {
	format, follows := m.Header[protocol.HeaderStateFormat], m.Header[protocol.HeaderStateFollows]
	if len(format) != 1 || format[0] != protocol.StateFormat || len(follows) != 1 {
		return 0, false // deleted, or by a program of another format
	}
	fields := strings.Split(follows[0], " ")
	version, err := strconv.ParseUint(fields[len(fields)-1], 10, 64)
	return version, err == nil
}
