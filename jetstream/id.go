package jetstream

import (
	"crypto/rand"
	"encoding/base64"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
)

// commandIDPrefix marks command ids that bear their time, so that no foreign
// string is mistaken for one.
const commandIDPrefix = "cmd-"

// NewID returns a new globally unique id of 26 characters that sorts by the time
// it was made (a ULID). It fits as an aggregate id.
func NewID() string {
	var text [ulid.EncodedSize]byte
	id := ulid.MustNew(ulid.Now(), rand.Reader)
	_ = id.MarshalTextTo(text[:]) // fails only for another length
	for i, c := range text {
		if c >= 'A' {
			text[i] = c | 0x20
		}
	}
	return string(text[:])
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
