package codec

import "encoding/binary"

// The Append functions write msgpack in its shortest form.

// AppendMap writes the head of a map of n entries.
func AppendMap(b []byte, n int) []byte { return appendHead(b, n, 0x80, 0xde) }

// AppendArray writes the head of an array of n elements.
func AppendArray(b []byte, n int) []byte { return appendHead(b, n, 0x90, 0xdc) }

func appendHead(b []byte, n int, fix, wide byte) []byte {
	switch {
	case n < 16:
		return append(b, fix|byte(n)) //nolint:gosec // bounded just above
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, wide), uint16(n))
	default:
		return binary.BigEndian.AppendUint32(append(b, wide+1), uint32(n)) //nolint:gosec // no slice is longer than a message
	}
}

// AppendString writes a string.
func AppendString(b []byte, s string) []byte {
	switch n := len(s); {
	case n < 32:
		b = append(b, 0xa0|byte(n))
	case n < 1<<8:
		b = append(b, 0xd9, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0xda), uint16(n))
	default:
		b = binary.BigEndian.AppendUint32(append(b, 0xdb), uint32(n)) //nolint:gosec // no string is longer than a message
	}
	return append(b, s...)
}

// AppendBytes writes a binary.
func AppendBytes(b, data []byte) []byte {
	switch n := len(data); {
	case n < 1<<8:
		b = append(b, 0xc4, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0xc5), uint16(n))
	default:
		b = binary.BigEndian.AppendUint32(append(b, 0xc6), uint32(n)) //nolint:gosec // no slice is longer than a message
	}
	return append(b, data...)
}

const (
	msgpackNil   = 0xc0
	msgpackFalse = 0xc2
	msgpackTrue  = 0xc3
)

// AppendBool writes a boolean.
func AppendBool(b []byte, v bool) []byte {
	if v {
		return append(b, msgpackTrue)
	}
	return append(b, msgpackFalse)
}

// AppendInt writes an integer that is not negative, or in 64 bits.
func AppendInt(b []byte, n int64) []byte {
	switch {
	case n < 0:
		return binary.BigEndian.AppendUint64(append(b, 0xd3), uint64(n)) //nolint:gosec // two's complement is meant
	case n < 1<<7:
		return append(b, byte(n))
	case n < 1<<8:
		return append(b, 0xcc, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, 0xcd), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(b, 0xce), uint32(n))
	default:
		return binary.BigEndian.AppendUint64(append(b, 0xcf), uint64(n))
	}
}
