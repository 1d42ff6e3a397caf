package queryhttp_test

import (
	"context"
	"iter"
	"log/slog"
	"testing"

	"github.com/rossby-go/rossby/internal/httpfuzz"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
	"github.com/rossby-go/rossby/projection/queryhttp"
)

// one is a view with one key.
type one struct{ entry projection.Entry[balance] }

func (o one) Get(_ context.Context, key string, _ ...projection.ReadOption) (projection.Entry[balance], error) {
	if key != o.entry.Key {
		return projection.Entry[balance]{}, projection.ErrNotFound
	}
	return o.entry, nil
}

func (o one) GetMany(
	context.Context, []string, ...projection.ReadOption,
) ([]projection.Entry[balance], error) {
	return []projection.Entry[balance]{o.entry}, nil
}

func (o one) all(yield func(projection.Entry[balance], error) bool) { yield(o.entry, nil) }

func (o one) List(context.Context, projection.ListOptions) iter.Seq2[projection.Entry[balance], error] {
	return o.all
}

func (o one) Find(context.Context, string, projection.FindOptions) iter.Seq2[projection.Entry[balance], error] {
	return o.all
}

func (o one) Position(context.Context, ...projection.ReadOption) (jetstream.Position, error) {
	return o.entry.Position, nil
}

func (o one) Watch(ctx context.Context, _ projection.WatchOptions) iter.Seq2[projection.Change[balance], error] {
	return func(yield func(projection.Change[balance], error) bool) {
		if yield(projection.Change[balance]{Entry: o.entry}, nil) {
			<-ctx.Done()
		}
	}
}

// FuzzRequest: every request is answered as HTTP wants it, and what is wrong with it
// is said as the sender's fault.
func FuzzRequest(f *testing.F) {
	h, err := queryhttp.New[balance](one{projection.Entry[balance]{Key: "1.a1", Value: balance{Cents: 5}, Sequence: 2}},
		queryhttp.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(h.Close)
	f.Add("GET", "/1.a1", "", "")
	f.Add("GET", "/?limit=7&after=x&prefix=a", `"1-2"`, "")
	f.Add("GET", "/?index=cents&value=%00&from=&to=", "*", "")
	f.Add("GET", "/?key=a&key=b&key=%2f&at=nonsense", `W/"`, "")
	f.Add("GET", "/?watch=", "", "99999999999999999999")
	f.Add("HEAD", "/a%2F..%2Fb?limit=-1", "", "")
	f.Add("POST", "/?limit=1001", "", "")
	f.Fuzz(func(t *testing.T, method, path, noneMatch, last string) {
		httpfuzz.Request(t, h, method, path, "", map[string]string{"If-None-Match": noneMatch, "Last-Event-ID": last})
	})
}
