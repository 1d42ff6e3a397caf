package archive

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"

	"github.com/rossby-go/rossby/jetstream"
)

// WriteForTest is the archive of some messages, each in a frame of its own.
func WriteForTest(h Header, messages ...jetstream.Message) ([]byte, error) {
	var b bytes.Buffer
	w, err := newWriter(&b, &h)
	if err != nil {
		return nil, err
	}
	for i := range messages {
		if _, err := w.add(&messages[i]); err != nil {
			return nil, err
		}
		if err := w.flush(); err != nil {
			return nil, err
		}
	}
	_, err = w.end()
	return b.Bytes(), err
}

// MendForTest sets the checksums of whatever looks like frames.
func MendForTest(b []byte) []byte {
	out := bytes.Clone(b)
	line := bytes.IndexByte(out, '\n') + 1
	hash := sha256.New()
	hash.Write(out[:line])
	for rest := out[line:]; len(rest) >= frameHead; {
		end := uint64(frameHead) + uint64(binary.BigEndian.Uint32(rest[1:]))
		if end+frameCheck > uint64(len(rest)) {
			break
		}
		hash.Write(rest[:end])
		copy(rest[end:], check(hash))
		hash.Write(rest[end : end+frameCheck])
		rest = rest[end+frameCheck:]
	}
	return out
}
