package codec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// ErrMalformed is returned for bytes that are not msgpack, or not the value that
// was asked for.
var ErrMalformed = errors.New("malformed msgpack")

// The bounds of nesting, so that no input exhausts the stack: of what a commit's
// envelope may gain, and of users' data, where it is JSON's.
const (
	maxDepth     = 100
	maxDepthData = 10_000
)

// Reader reads msgpack from a slice without copying or reflection: decoding the
// envelope of every commit with the general library costs more than half of the
// time of a catch-up. The first error sticks; later reads return zero values.
type Reader struct {
	data []byte
	pos  int
	err  error
	// strict refuses fields that a plan does not have.
	strict bool
}

// NewReader reads data, which must not change meanwhile.
func NewReader(data []byte) *Reader { return &Reader{data: data} }

// Err is the first error.
func (r *Reader) Err() error { return r.err }

// Offset is the number of bytes read.
func (r *Reader) Offset() int { return r.pos }

// Rest is the number of bytes left.
func (r *Reader) Rest() int { return len(r.data) - r.pos }

func (r *Reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s at byte %d", ErrMalformed, what, r.pos)
	}
}

func (r *Reader) take(n int) []byte {
	if r.err != nil {
		return nil
	}
	if n < 0 || n > len(r.data)-r.pos {
		r.fail(fmt.Sprintf("%d bytes wanted, %d left", n, len(r.data)-r.pos))
		return nil
	}
	b := r.data[r.pos : r.pos+n : r.pos+n]
	r.pos += n
	return b
}

func (r *Reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

// uint reads a big-endian number of n bytes.
func (r *Reader) uint(n int) uint64 {
	var buf [8]byte
	b := r.take(n)
	if b == nil {
		return 0
	}
	copy(buf[8-n:], b)
	return binary.BigEndian.Uint64(buf[:])
}

func (r *Reader) length(n int) int {
	v := r.uint(n)
	if v > math.MaxInt32 {
		r.fail("a length beyond any message")
		return 0
	}
	return int(v)
}

// Map reads a map's head and returns the number of its entries.
func (r *Reader) Map() int { return r.container(containerMap, "map") }

// Array reads an array's head and returns the number of its elements.
func (r *Reader) Array() int { return r.container(containerArray, "array") }

func (r *Reader) container(want int, name string) int {
	kind, n := r.peekContainer()
	if kind != want {
		r.fail("no " + name)
		return 0
	}
	return n
}

const (
	containerNone = iota
	containerArray
	containerMap
)

// peekContainer reads the head of an array or map; of anything else it reads
// nothing. An entry takes a byte at least, so no head promises more than what is
// left.
func (r *Reader) peekContainer() (kind, n int) {
	if r.err != nil || r.Rest() == 0 {
		return containerNone, 0
	}
	switch c := r.data[r.pos]; {
	case c&0xf0 == 0x80:
		r.pos++
		kind, n = containerMap, int(c&0x0f)
	case c&0xf0 == 0x90:
		r.pos++
		kind, n = containerArray, int(c&0x0f)
	case c == 0xdc, c == 0xdd:
		r.pos++
		kind, n = containerArray, r.length(2<<(c-0xdc))
	case c == 0xde, c == 0xdf:
		r.pos++
		kind, n = containerMap, r.length(2<<(c-0xde))
	default:
		return containerNone, 0
	}
	if n > r.Rest() {
		r.fail("more elements than bytes")
		return kind, 0
	}
	return kind, n
}

// Bytes reads a string or a binary as a part of the data, not a copy.
func (r *Reader) Bytes() []byte {
	switch c := r.byte(); {
	case r.err != nil:
		return nil
	case c&0xe0 == 0xa0:
		return r.take(int(c & 0x1f))
	case c >= 0xc4 && c <= 0xc6:
		return r.take(r.length(1 << (c - 0xc4)))
	case c >= 0xd9 && c <= 0xdb:
		return r.take(r.length(1 << (c - 0xd9)))
	}
	r.pos--
	r.fail("no string or binary")
	return nil
}

// String reads a string or a binary.
func (r *Reader) String() string { return string(r.Bytes()) }

// Bool reads a boolean.
func (r *Reader) Bool() bool {
	switch c := r.byte(); {
	case r.err != nil:
		return false
	case c == msgpackFalse, c == msgpackTrue:
		return c == msgpackTrue
	}
	r.pos--
	r.fail("no boolean")
	return false
}

// Int reads an integer of any width.
func (r *Reader) Int() int64 {
	switch c := r.byte(); {
	case r.err != nil:
		return 0
	case c <= 0x7f:
		return int64(c)
	case c >= 0xe0:
		return int64(int8(c)) //nolint:gosec // the negative fixint is that byte
	case c >= 0xcc && c <= 0xcf:
		v := r.uint(1 << (c - 0xcc))
		if v > math.MaxInt64 {
			r.fail("an integer beyond 63 bits")
			return 0
		}
		return int64(v)
	case c == 0xd0:
		return int64(int8(r.uint(1))) //nolint:gosec // sign extension is meant
	case c == 0xd1:
		return int64(int16(r.uint(2))) //nolint:gosec // sign extension is meant
	case c == 0xd2:
		return int64(int32(r.uint(4))) //nolint:gosec // sign extension is meant
	case c == 0xd3:
		return int64(r.uint(8)) //nolint:gosec // sign extension is meant
	}
	r.pos--
	r.fail("no integer")
	return 0
}

// Skip passes over one value of any kind.
func (r *Reader) Skip() { r.skip(maxDepth) }

func (r *Reader) skip(depth int) {
	if depth < 0 {
		r.fail("nested too deeply")
		return
	}
	if kind, n := r.peekContainer(); kind != containerNone {
		if kind == containerMap {
			n *= 2
		}
		for range n {
			if r.err != nil {
				return
			}
			r.skip(depth - 1)
		}
		return
	}
	switch c := r.byte(); {
	case r.err != nil:
	case c <= 0x7f, c >= 0xe0, c == 0xc0, c == 0xc2, c == 0xc3:
	case c&0xe0 == 0xa0:
		r.take(int(c & 0x1f))
	case c >= 0xc4 && c <= 0xc6:
		r.take(r.length(1 << (c - 0xc4)))
	case c >= 0xc7 && c <= 0xc9:
		r.take(r.length(1<<(c-0xc7)) + 1)
	case c == 0xca:
		r.take(4)
	case c == 0xcb:
		r.take(8)
	case c >= 0xcc && c <= 0xcf:
		r.take(1 << (c - 0xcc))
	case c >= 0xd0 && c <= 0xd3:
		r.take(1 << (c - 0xd0))
	case c >= 0xd4 && c <= 0xd8:
		r.take(1<<(c-0xd4) + 1)
	case c >= 0xd9 && c <= 0xdb:
		r.take(r.length(1 << (c - 0xd9)))
	default:
		r.fail("a reserved byte")
	}
}

// Fail makes err the reader's error unless it has one.
func (r *Reader) Fail(err error) {
	if r.err == nil {
		r.err = err
	}
}
