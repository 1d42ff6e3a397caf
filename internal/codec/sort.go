package codec

import (
	"bytes"
	"slices"
)

// sortMaps rewrites msgpack data so that every map's entries stand in the order
// of their keys' bytes. The msgpack library sorts only maps of strings.
func sortMaps(data []byte) ([]byte, error) {
	r := NewReader(data)
	out, err := appendSorted(make([]byte, 0, len(data)), r, maxDepthData)
	if err != nil {
		return nil, err
	}
	return out, nil
}

func appendSorted(out []byte, r *Reader, depth int) ([]byte, error) {
	if depth < 0 {
		r.fail("nested too deeply")
		return nil, r.Err()
	}
	start := r.Offset()
	switch kind, n := r.peekContainer(); kind {
	case containerArray:
		out = append(out, r.data[start:r.Offset()]...)
		for range n {
			var err error
			if out, err = appendSorted(out, r, depth-1); err != nil {
				return nil, err
			}
		}
		return out, r.Err()
	case containerMap:
		out = append(out, r.data[start:r.Offset()]...)
		type entry struct{ key, value []byte }
		var entries []entry
		for range n {
			k, err := appendSorted(nil, r, depth-1)
			if err != nil {
				return nil, err
			}
			v, err := appendSorted(nil, r, depth-1)
			if err != nil {
				return nil, err
			}
			entries = append(entries, entry{k, v})
		}
		slices.SortStableFunc(entries, func(a, b entry) int { return bytes.Compare(a.key, b.key) })
		for _, e := range entries {
			out = append(append(out, e.key...), e.value...)
		}
		return out, r.Err()
	default:
		r.Skip()
		if err := r.Err(); err != nil {
			return nil, err
		}
		return append(out, r.data[start:r.Offset()]...), nil
	}
}
