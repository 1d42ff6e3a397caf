package commandhttp

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/problem"
	"github.com/rossby-go/rossby/internal/protocol"
	"github.com/rossby-go/rossby/jetstream"
)

// The names of headers.
const (
	headerETag     = "ETag"
	headerKey      = "Idempotency-Key"
	headerPosition = "Rossby-Position"
	headerReplayed = "Idempotent-Replayed"
)

// request is what a request asks for.
type request struct {
	contentType string
	body        []byte
	options     []aggregate.CallOption
	// key is the command's id, the client's or one made for it.
	key      string
	keyGiven bool
	// wait is how long the command may take.
	wait    time.Duration
	minimal bool
	// noneMatch tells that the aggregate must not exist.
	noneMatch bool
}

// read takes a request apart.
func (h *Handler) read(w http.ResponseWriter, r *http.Request) (*request, error) {
	in := &request{wait: h.cfg.Timeout}
	if err := in.readBody(w, r, h.cfg.MaxBody); err != nil {
		return nil, err
	}
	if err := errors.Join(in.readKey(r.Header), in.readMatch(r.Header), in.readPreferences(r.Header)); err != nil {
		return nil, err
	}
	in.options = append(in.options, aggregate.CommandID(in.key))
	switch text := strings.Join(r.Header.Values(protocol.HeaderRecordRejections), ", "); text {
	case "", "false":
	case "true":
		in.options = append(in.options, aggregate.RecordRejections())
	default:
		return nil, invalid(protocol.HeaderRecordRejections, text, `is neither "true" nor "false"`)
	}
	for name, option := range map[string]func(string) aggregate.CallOption{
		protocol.HeaderCorrelation: aggregate.Correlation, protocol.HeaderCausation: aggregate.Causation,
		protocol.HeaderTraceParent: aggregate.TraceParent,
	} {
		if value := r.Header.Get(name); value != "" {
			in.options = append(in.options, option(value))
		}
	}
	if h.cfg.Options == nil {
		return in, nil
	}
	more, err := h.cfg.Options(r)
	in.options = append(in.options, more...)
	return in, err
}

// readBody takes the command. A body must say what it is: a page of another site
// may send one that does not without being asked.
func (in *request) readBody(w http.ResponseWriter, r *http.Request, most int64) error {
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		w.Header().Set("Accept-Encoding", "identity")
		return problem.Of(http.StatusUnsupportedMediaType, "unsupported-media-type",
			fmt.Sprintf("the body's encoding %q is not known", encoding))
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if long, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return problem.Of(http.StatusRequestEntityTooLarge, "too-large",
			fmt.Sprintf("the body is longer than %d bytes", long.Limit))
	}
	if late, ok := errors.AsType[net.Error](err); ok && late.Timeout() {
		return problem.Of(http.StatusRequestTimeout, "body-timeout", "the body took too long")
	}
	if err != nil {
		return problem.Of(http.StatusBadRequest, "invalid", "the body ended too early")
	}
	if len(body) == 0 {
		return nil
	}
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case err == nil && media == jetstream.Msgpack.ContentType():
		in.contentType = media
	case err == nil && (media == jetstream.JSON.ContentType() || strings.HasSuffix(media, "+json")):
		in.contentType = jetstream.JSON.ContentType()
	default:
		w.Header().Set("Accept-Post", jetstream.JSON.ContentType()+", "+jetstream.Msgpack.ContentType())
		return problem.Of(http.StatusUnsupportedMediaType, "unsupported-media-type",
			fmt.Sprintf("the body's Content-Type %q is neither JSON nor msgpack", r.Header.Get("Content-Type")))
	}
	in.body = body
	return nil
}

// readKey takes the idempotency key, bare or as a string in quotes. A command
// without one gets one of ours, so that it may be repeated when it fails.
func (in *request) readKey(header http.Header) error {
	values := header.Values(headerKey)
	if len(values) == 0 {
		in.key = jetstream.NewCommandID()
		return nil
	}
	key := values[0]
	if len(key) >= 2 && key[0] == '"' && key[len(key)-1] == '"' {
		key = key[1 : len(key)-1]
	}
	if key == "" || len(values) > 1 || strings.ContainsAny(key, `"\`) {
		return invalid(headerKey, strings.Join(values, ", "), "is not one key")
	}
	if len(key) > jetstream.MaxIDLength {
		return invalid(headerKey, key, fmt.Sprintf("is longer than %d bytes", jetstream.MaxIDLength))
	}
	in.key, in.keyGiven = key, true
	return nil
}

// readMatch takes the version that the aggregate must have.
func (in *request) readMatch(header http.Header) error {
	if text := strings.Join(header.Values("If-None-Match"), ", "); text != "" {
		if text != "*" {
			return invalid("If-None-Match", text, `is not "*", which is all that a command knows`)
		}
		in.noneMatch = true
	}
	switch text := strings.Join(header.Values("If-Match"), ", "); {
	case text == "", text == "*": // without an aggregate it is "not found" anyway
	case strings.HasPrefix(text, "W/"):
		return problem.Of(http.StatusPreconditionFailed, "version",
			"If-Match compares strongly, so a weak ETag never matches")
	default:
		if len(text) < 3 || text[0] != '"' || text[len(text)-1] != '"' {
			return invalid("If-Match", text, `is not one ETag such as "7"`)
		}
		version, err := strconv.ParseUint(text[1:len(text)-1], 10, 64)
		if err != nil || etag(version) != text {
			return invalid("If-Match", text, `is not one ETag such as "7"`)
		}
		in.options = append(in.options, aggregate.ExpectVersion(version))
	}
	return nil
}

// readPreferences takes what RFC 7240 calls preferences; those that it does not
// know it leaves alone.
func (in *request) readPreferences(header http.Header) error {
	for _, value := range header.Values("Prefer") {
		for part := range strings.SplitSeq(value, ",") {
			part, _, _ = strings.Cut(part, ";")
			name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
			value = strings.Trim(value, `"`)
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "return":
				in.minimal = value == "minimal"
			case "wait":
				seconds, err := strconv.ParseUint(value, 10, 31)
				if err != nil || seconds == 0 {
					return invalid("Prefer", "wait="+value, "is not a number of seconds")
				}
				in.wait = min(in.wait, time.Duration(seconds)*time.Second)
			}
		}
	}
	return nil
}

// failed adds what the request has to do with the error.
func (in *request) failed(w http.ResponseWriter, err error) error {
	if version, ok := errors.AsType[*aggregate.VersionError](err); ok {
		w.Header().Set(headerETag, etag(version.Actual))
	}
	if errors.Is(err, aggregate.ErrExists) && in.noneMatch {
		return problem.Of(http.StatusPreconditionFailed, "exists", err.Error())
	}
	if errors.Is(err, jetstream.ErrUnknownOutcome) {
		w.Header().Set(headerKey, `"`+in.key+`"`) // under which it may be repeated
	}
	return err
}

func etag(version uint64) string { return `"` + strconv.FormatUint(version, 10) + `"` }

func invalid(field, value, reason string) error {
	return &jetstream.InvalidError{Field: field, Value: value, Reason: reason}
}
