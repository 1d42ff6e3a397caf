package projection

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"

	"github.com/rossby-go/rossby/internal/codec"
	"github.com/rossby-go/rossby/jetstream"
)

// findRequest is the body of a find query; all but the index may be left out.
type findRequest struct {
	Index   string `json:"index"`
	Value   string `json:"value,omitempty"`
	Prefix  string `json:"prefix,omitempty"`
	From    string `json:"from,omitempty"`
	Before  string `json:"before,omitempty"`
	Reverse bool   `json:"reverse,omitempty"`
	After   string `json:"after,omitempty"`
	Limit   int    `json:"limit,omitempty"`
}

// parseFind reads the body of a find query.
func parseFind(data []byte) (findRequest, error) {
	var r findRequest
	err := parseBody("find request", data, &r)
	r.Limit = pageLimit(r.Limit)
	return r, err
}

// parseBody reads the body of a query. A field that is not known could be a slip
// that changes what is asked for.
func parseBody(name string, data []byte, into any) error {
	if len(data) > maxListRequest {
		return &jetstream.InvalidError{
			Field: name, Value: strconv.Itoa(len(data)),
			Reason: fmt.Sprintf("is its size in bytes: at most %d are read", maxListRequest),
		}
	}
	if len(data) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		err = errors.New("something follows it")
	}
	return &jetstream.InvalidError{Field: name, Value: string(data), Reason: "is not such JSON: " + err.Error()}
}

// pageLimit is the number of entries on a page.
func pageLimit(asked int) int {
	if asked <= 0 || asked > scanKeys {
		return QueryPageDefault
	}
	return asked
}

func (q *QueryService) find(ctx context.Context, r AnyReader, m *query) {
	body, err := parseFind(m.data)
	if err != nil {
		respondError(m, err)
		return
	}
	after, err := jetstream.ParsePosition(m.header.Get(HeaderAfter))
	if err != nil {
		respondError(m, err)
		return
	}
	o := FindOptions{
		Value: body.Value, Prefix: body.Prefix, From: body.From, Before: body.Before, Reverse: body.Reverse,
		After: body.After, Limit: body.Limit, AtLeast: after,
	}
	reply, err := r.queryFind(ctx, body.Index, o, min(maxListReply, int(m.nc.MaxPayload()/2)))
	if err != nil {
		respondError(m, err)
		return
	}
	m.respond(reply, nil)
}

func (r *Reader[V]) queryFind(ctx context.Context, index string, o FindOptions, most int) ([]byte, error) {
	reply := listReply{Entries: []listEntry{}}
	size, limit := 0, o.Limit
	o.Limit++ // One more tells whether there is another page.
	for e, err := range r.Find(ctx, index, o) {
		if err != nil {
			return nil, err
		}
		told, err := listEntryOf(&e)
		if err != nil {
			return nil, err
		}
		n := len(reply.Entries)
		if size += told.size(); n == limit || size > most && n > 0 {
			reply.Next = reply.Entries[n-1].Token
			break
		}
		reply.Entries = append(reply.Entries, told)
	}
	return codec.MarshalJSON(reply)
}

// Find yields entries as [Reader.Find] does, page by page: what is one snapshot is a
// page. A page of a search that the server cannot narrow down costs as much as the
// search, so take what is needed at once.
func (c *QueryClient[V]) Find(ctx context.Context, index string, o FindOptions) iter.Seq2[Entry[V], error] {
	return func(yield func(Entry[V], error) bool) {
		// What the service would refuse in other words.
		if err := (&search[V]{index: index, o: o}).begin(); err != nil {
			yield(Entry[V]{}, fmt.Errorf("view %q, index %q: %w", c.view, index, err))
			return
		}
		body := findRequest{
			Index: index, Value: o.Value, Prefix: o.Prefix, From: o.From, Before: o.Before, Reverse: o.Reverse, After: o.After,
		}
		c.pages(o.Limit, yield, func(after string, limit int) (listReply, error) {
			if after != "" {
				body.After = after
			}
			body.Limit = limit
			return c.page(ctx, "find", body, o.AtLeast)
		})
	}
}
