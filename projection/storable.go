package projection

import (
	"bytes"
	"fmt"
	"runtime/debug"

	"github.com/rossby-go/rossby/internal/codec"
	"github.com/rossby-go/rossby/jetstream"
)

// seal encodes the page's values and keeps what has to be written.
func (f *folder) seal() error {
	p := f.page
	if f.core.kind == kindLookup {
		return nil
	}
	write := p.changed[:0]
	for _, s := range p.changed {
		if err := f.encode(s); err != nil {
			return err
		}
		same := s.exists == s.base.exists() && bytes.Equal(s.out, s.base.data)
		if same {
			s.seq = 0 // Nothing to write: the base stays.
			continue
		}
		if err := f.place(s, &f.dog.some); err != nil {
			return err
		}
		write = append(write, s)
	}
	p.changed = write
	return nil
}

// encodeValue is a slot's value as it is stored.
func encodeValue(s *slot) (data []byte, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &ValueError{Key: s.key, Cause: &PanicError{Value: v, Stack: string(debug.Stack())}}
		}
	}()
	if data, err = codec.JSON.Encode(s.value); err != nil {
		return nil, &ValueError{Key: s.key, Cause: err}
	}
	return data, nil
}

// encode makes what will be written of a slot out of its value.
func (f *folder) encode(s *slot) error {
	if s.exists {
		data, err := encodeValue(s)
		if err != nil {
			return err
		}
		s.out = data
	}
	s.value = nil
	return nil
}

// place finds out what a slot that will be written is found by, for an event, and
// whether the server takes it.
func (f *folder) place(s *slot, rec *jetstream.Recorded) error {
	if len(f.core.indexes) > 0 {
		f.dog.begin(rec, s)
		err := f.core.index(s)
		f.dog.end()
		if err != nil {
			return err
		}
	}
	return f.fits(s.key, s.out, s.index)
}

// fits tells whether the server takes a value with what it is found by.
func (f *folder) fits(key string, data []byte, places []string) error {
	found := indexBytes(places)
	if found > maxPlaceBytes {
		return &ValueError{Key: key, Cause: fmt.Errorf(
			"is found by index values of %d bytes, the server takes %d", found, maxPlaceBytes)}
	}
	if size, limit := len(data)+found, f.limit(); limit > 0 && size > limit {
		return &ValueError{Key: key, Cause: fmt.Errorf("is %d bytes, the server takes %d", size, limit)}
	}
	return nil
}

// storable tells whether what a fold has made of a slot can be stored.
func (f *folder) storable(s *slot) error {
	if s.gone {
		return nil
	}
	data, err := encodeValue(s)
	if err != nil {
		return err
	}
	places, err := f.core.places(s.key, data)
	if err != nil {
		return err
	}
	return f.fits(s.key, data, places)
}

// limit is the largest value that the server takes, 0 when that is not known.
func (f *folder) limit() int {
	if f.b == nil {
		return 0
	}
	return max(int(f.b.nc.MaxPayload())-512, 0)
}
