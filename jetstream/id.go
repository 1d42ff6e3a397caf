package jetstream

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
)

// commandIDPrefix marks command ids that bear their time, so that no foreign
// string is mistaken for one.
const commandIDPrefix = "cmd-"

// NewID returns a new globally unique id of 26 characters that sorts by the time
// it was made (a ULID). Those of one millisecond sort as this process made them. It
// fits as an aggregate id.
func NewID() string {
	var text [ulid.EncodedSize]byte
	id := ids.next(ulid.Now)
	_ = id.MarshalTextTo(text[:]) // fails only for another length
	for i, c := range text {
		if c >= 'A' {
			text[i] = c | 0x20
		}
	}
	return string(text[:])
}

var ids idSource //nolint:gochecknoglobals // ids of one process are in order only if it has one source

// idSource makes ULIDs in order. Its randomness is the system's, read for each: that
// of a library is read ahead, and a clone of the machine would read the same.
type idSource struct {
	mu   sync.Mutex
	last ulid.ULID
}

const ulidEntropy = 6 // where it begins

// next is a random id of the clock's millisecond or, when it is that of the last one, a
// little more than the last. A clock that goes back is believed: the time that an id
// bears must not be in the future.
func (s *idSource) next(clock func() uint64) ulid.ULID {
	var id ulid.ULID
	_, _ = rand.Read(id[ulidEntropy:]) // never fails
	s.mu.Lock()
	defer s.mu.Unlock()
	ms := clock()
	_ = id.SetTime(ms) // fails only beyond the year 10889
	if ms == s.last.Time() {
		if more, ok := plus(s.last, 1+uint64(binary.BigEndian.Uint32(id[12:]))); ok {
			id = more
		}
	}
	s.last = id
	return id
}

// plus adds to the random part; false when there is no room.
func plus(id ulid.ULID, n uint64) (ulid.ULID, bool) {
	low := binary.BigEndian.Uint64(id[8:])
	binary.BigEndian.PutUint64(id[8:], low+n)
	if low+n >= low {
		return id, true
	}
	high := binary.BigEndian.Uint16(id[ulidEntropy:]) + 1
	binary.BigEndian.PutUint16(id[ulidEntropy:], high)
	return id, high != 0
}

// newCommitID returns 96 random bits as 16 characters. Every commit carries its id
// and its predecessor's, so they are short; nothing needs their order.
//
// The bits come from the system: an append tells its own commit from another's by
// the id, so two machines that were cloned must not draw the same ones.
func newCommitID() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// NewCommandID returns a new command id. It bears the time it was made, so that
// whether it was handled before is found without a search of old commits.
func NewCommandID() string { return commandIDPrefix + NewID() }

// CommandIDTime is the time that an id of [NewCommandID] bears; false for any
// other string.
func CommandIDTime(id string) (time.Time, bool) {
	text, ok := strings.CutPrefix(id, commandIDPrefix)
	if !ok {
		return time.Time{}, false
	}
	u, err := ulid.ParseStrict(text)
	if err != nil {
		return time.Time{}, false
	}
	return ulid.Time(u.Time()).UTC(), true
}
