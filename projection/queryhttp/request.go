package queryhttp

import (
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/rossby-go/rossby/internal/problem"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// The names of headers.
const headerPosition = "Rossby-Position"

const eventStream = "text/event-stream"

// query is what a request asks for.
type query struct {
	key    string
	keys   []string
	prefix string
	// index is what find searches, "" for a list.
	index string
	find  projection.FindOptions
	page  string
	limit int
	after jetstream.Position
	wait  time.Duration
	// events asks for a watch, after the event last.
	events bool
	last   string
}

// read takes a request apart.
func (h *Handler) read(r *http.Request) (*query, error) {
	q := &query{limit: LimitDefault, wait: h.cfg.Timeout}
	key, err := url.PathUnescape(strings.TrimPrefix(r.URL.EscapedPath(), "/"))
	if err != nil {
		return nil, invalid("path", r.URL.EscapedPath(), "is not well escaped")
	}
	q.key = key
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, invalid("query", r.URL.RawQuery, "is not well escaped")
	}
	for name, all := range values {
		if len(all) > 1 && name != "key" {
			return nil, invalid(name, strings.Join(all, ", "), "is there more than once")
		}
		if err := q.parameter(name, all); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{"value", "from", "before", "reverse"} {
		if all, ok := values[name]; ok && q.index == "" {
			return nil, invalid(name, all[0], "is no parameter without an index")
		}
	}
	if q.index != "" && len(q.keys) > 0 {
		return nil, invalid("index", q.index, "and keys cannot both be asked for")
	}
	q.events = wantsEvents(r.Header.Values("Accept"))
	q.last = r.Header.Get("Last-Event-ID")
	if q.events && (len(q.keys) > 0 || q.page != "" || q.index != "") {
		return nil, problem.Of(http.StatusBadRequest, "invalid", "an event stream is of one key, or of all under a prefix")
	}
	return q, q.prefer(r.Header.Values("Prefer"))
}

// parameter takes one of the address's parameters. One that is not known could be a
// slip that changes what is asked for.
func (q *query) parameter(name string, all []string) (err error) {
	value := all[0]
	if q.key != "" && name != "after" {
		return invalid(name, value, "is no parameter of a key")
	}
	switch name {
	case "after":
		q.after, err = jetstream.ParsePosition(value)
	case "key":
		q.keys = all
	case "prefix":
		q.prefix = value
	case "page":
		q.page = value
	case "index":
		if q.index = value; value == "" {
			return invalid(name, value, "is empty")
		}
	case "value":
		if q.find.Value = value; value == "" {
			return invalid(name, value, "is empty, and no empty value is in an index")
		}
	case "from":
		q.find.From = value
	case "before":
		q.find.Before = value
	case "reverse":
		if q.find.Reverse, err = strconv.ParseBool(value); err != nil {
			return invalid(name, value, "is neither true nor false")
		}
	case "limit":
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > LimitMax {
			return invalid(name, value, "is not a number from 1 to "+strconv.Itoa(LimitMax))
		}
		q.limit = n
	default:
		return invalid(name, value, "is no parameter of a view")
	}
	return err
}

// prefer takes how long the caller waits; other preferences are left alone.
func (q *query) prefer(values []string) error {
	for _, value := range values {
		for part := range strings.SplitSeq(value, ",") {
			part, _, _ = strings.Cut(part, ";")
			name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
			if !strings.EqualFold(strings.TrimSpace(name), "wait") {
				continue
			}
			value = strings.Trim(strings.TrimSpace(value), `"`)
			seconds, err := strconv.ParseUint(value, 10, 31)
			if err != nil || seconds == 0 {
				return invalid("Prefer", "wait="+value, "is not a number of seconds")
			}
			q.wait = min(q.wait, time.Duration(seconds)*time.Second)
		}
	}
	return nil
}

// wantsEvents tells whether an event stream is asked for by name.
func wantsEvents(values []string) bool {
	for _, value := range values {
		for part := range strings.SplitSeq(value, ",") {
			if media, _, err := mime.ParseMediaType(part); err == nil && media == eventStream {
				return true
			}
		}
	}
	return false
}

func invalid(field, value, reason string) error {
	return &jetstream.InvalidError{Field: field, Value: value, Reason: reason}
}
