package queryhttp

import (
	"context"
	"encoding/json"
	"iter"
	"time"

	"github.com/rossby-go/rossby/internal/codec"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// maxPage bounds an answer's values, in bytes; the rest is on the next page.
const maxPage = 4 << 20

// view is a source whose values are JSON.
type view interface {
	get(ctx context.Context, key string, opts ...projection.ReadOption) (entry, error)
	getMany(ctx context.Context, keys []string, opts ...projection.ReadOption) ([]entry, error)
	list(ctx context.Context, o projection.ListOptions) (entries []entry, next string, err error)
	find(ctx context.Context, index string, o projection.FindOptions) (entries []entry, next string, err error)
	position(ctx context.Context, opts ...projection.ReadOption) (jetstream.Position, error)
	watch(ctx context.Context, o projection.WatchOptions) iter.Seq2[change, error]
}

// entry is an entry as answers have it: that of a query service, and the entity tag.
type entry struct {
	Key        string             `json:"key"`
	Value      json.RawMessage    `json:"value,omitempty"`
	Position   jetstream.Position `json:"position"`
	Sequence   uint64             `json:"sequence"`
	Revision   uint64             `json:"revision"`
	Generation int                `json:"generation"`
	Time       time.Time          `json:"time"`
	ETag       string             `json:"etag"`
	// Indexed is the index value that a search has found it by.
	Indexed string `json:"indexed,omitempty"`

	token string
}

// page is the body of a list.
type page struct {
	Entries []entry `json:"entries"`
	Next    string  `json:"next,omitempty"`
}

// change is one step of a watch.
type change struct {
	kind  projection.ChangeKind
	entry entry
}

type typed[V any] struct{ source Source[V] }

func encode(v any) ([]byte, error) { return codec.MarshalJSON(v) }

func render[V any](e *projection.Entry[V], value bool) (entry, error) {
	out := entry{
		Key: e.Key, Position: e.Position, Sequence: e.Sequence, Revision: e.Revision,
		Generation: e.Generation, Time: e.Time, ETag: e.ETag(), Indexed: e.Indexed, token: e.Token(),
	}
	if !value {
		return out, nil
	}
	body, err := encode(e.Value)
	out.Value = body
	return out, err
}

func (v typed[V]) get(ctx context.Context, key string, opts ...projection.ReadOption) (entry, error) {
	e, err := v.source.Get(ctx, key, opts...)
	if err != nil {
		return entry{Position: e.Position}, err
	}
	return render(&e, true)
}

func (v typed[V]) getMany(ctx context.Context, keys []string, opts ...projection.ReadOption) ([]entry, error) {
	found, err := v.source.GetMany(ctx, keys, opts...)
	if err != nil {
		return nil, err
	}
	out := make([]entry, len(found))
	for i := range found {
		if out[i], err = render(&found[i], true); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (v typed[V]) list(ctx context.Context, o projection.ListOptions) ([]entry, string, error) {
	limit := o.Limit
	o.Limit++ // One more tells whether there is another page.
	return collect(v.source.List(ctx, o), limit)
}

func (v typed[V]) find(ctx context.Context, index string, o projection.FindOptions) ([]entry, string, error) {
	limit := o.Limit
	o.Limit++
	return collect(v.source.Find(ctx, index, o), limit)
}

// collect takes a page; next is the token to go on with, "" at the end.
func collect[V any](from iter.Seq2[projection.Entry[V], error], limit int) (entries []entry, next string, err error) {
	entries = []entry{}
	size := 0
	for e, err := range from {
		if err != nil {
			return nil, "", err
		}
		if n := len(entries); n == limit || n > 0 && size > maxPage {
			return entries, entries[n-1].token, nil
		}
		out, err := render(&e, true)
		if err != nil {
			return nil, "", err
		}
		size += len(out.Value) + len(out.Key)
		entries = append(entries, out)
	}
	return entries, "", nil
}

func (v typed[V]) position(ctx context.Context, opts ...projection.ReadOption) (jetstream.Position, error) {
	return v.source.Position(ctx, opts...)
}

func (v typed[V]) watch(ctx context.Context, o projection.WatchOptions) iter.Seq2[change, error] {
	return func(yield func(change, error) bool) {
		for c, err := range v.source.Watch(ctx, o) {
			var out entry
			if err == nil {
				out, err = render(&c.Entry, c.Kind == projection.Put)
			}
			if !yield(change{kind: c.Kind, entry: out}, err) {
				return
			}
		}
	}
}
