package webhook

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	standard "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/rossby-go/rossby/gateway/cloudevent"
	"github.com/rossby-go/rossby/jetstream"
)

// ToleranceDefault is how far a signature's time may be from now.
const ToleranceDefault = 5 * time.Minute

// ReceiverConfig describes a [Receiver]. Secrets are required.
type ReceiverConfig struct {
	// MaxBody bounds a request's body. Defaults to [MaxRequestDefault].
	MaxBody int64
	// Now is the clock. Defaults to time.Now.
	Now func() time.Time
	// Secrets are those that a sender may sign with; see [Config.Secrets].
	Secrets []string
	// Tolerance is how far a signature's time may be from now, in either direction:
	// it bounds how long a request that somebody recorded can be sent again. Defaults
	// to [ToleranceDefault].
	Tolerance time.Duration
}

// Validate reports every field that [NewReceiver] would refuse, joined.
func (c ReceiverConfig) Validate() error {
	var errs []error
	if len(c.Secrets) == 0 {
		errs = append(errs, &jetstream.InvalidError{Field: "Secrets", Reason: "are missing"})
	}
	_, err := signers(c.Secrets)
	errs = append(errs, err)
	if c.MaxBody < 0 {
		errs = append(errs, &jetstream.InvalidError{
			Field: "MaxBody", Value: strconv.FormatInt(c.MaxBody, 10), Reason: "is negative",
		})
	}
	if c.Tolerance < 0 {
		errs = append(errs, &jetstream.InvalidError{
			Field: "Tolerance", Value: c.Tolerance.String(), Reason: "is negative",
		})
	}
	return errors.Join(errs...)
}

// Receiver verifies requests of Standard Webhooks. It is safe for concurrent use.
//
// A verified request may still be a repetition: whoever acts on it must remember
// its id.
type Receiver struct {
	cfg  ReceiverConfig
	keys []*standard.Webhook
}

// NewReceiver makes a receiver. Returns the configuration's mistakes, joined.
func NewReceiver(cfg ReceiverConfig) (*Receiver, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("webhook receiver: %w", err)
	}
	keys, err := signers(cfg.Secrets)
	if err != nil {
		return nil, fmt.Errorf("webhook receiver: %w", err)
	}
	cfg.MaxBody = cmp.Or(cfg.MaxBody, MaxRequestDefault)
	cfg.Tolerance = cmp.Or(cfg.Tolerance, ToleranceDefault)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Receiver{cfg: cfg, keys: keys}, nil
}

// Message is a verified request.
type Message struct {
	// ID is the same on every attempt to deliver the message.
	ID string
	// Time is when it was signed.
	Time time.Time
	Body []byte
}

// Verify reads the request's body and verifies its signature. It returns
// [ErrUnsigned], [ErrTimestamp], [ErrTooLarge], [ErrSignature], or the error of
// reading. Signatures are compared in constant time.
func (r *Receiver) Verify(req *http.Request) (Message, error) {
	m := Message{ID: req.Header.Get(HeaderID)}
	stamp, signature := req.Header.Get(HeaderTimestamp), req.Header.Get(HeaderSignature)
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if m.ID == "" || signature == "" || err != nil {
		return Message{}, fmt.Errorf("webhook: %w: id %q, timestamp %q", ErrUnsigned, m.ID, stamp)
	}
	m.Time = time.Unix(seconds, 0).UTC()
	if off := r.cfg.Now().Sub(m.Time); off > r.cfg.Tolerance || off < -r.cfg.Tolerance {
		return Message{}, fmt.Errorf("webhook: %w: %v from now", ErrTimestamp, off)
	}
	m.Body, err = io.ReadAll(io.LimitReader(req.Body, r.cfg.MaxBody+1))
	switch {
	case err != nil:
		return Message{}, fmt.Errorf("webhook: read the body: %w", err)
	case int64(len(m.Body)) > r.cfg.MaxBody:
		return Message{}, fmt.Errorf("webhook: %w: allowed are %d bytes", ErrTooLarge, r.cfg.MaxBody)
	}
	matches := false
	for _, key := range r.keys {
		// All are tried, so that the time does not tell which one it was.
		matches = key.VerifyIgnoringTimestamp(m.Body, req.Header) == nil || matches
	}
	if !matches {
		return Message{}, fmt.Errorf("webhook: %w", ErrSignature)
	}
	return m, nil
}

// Handler gives verified messages to handle. What does not verify is answered 400,
// 401 or 413, an error of handle 500, and what it takes 204.
func (r *Receiver) Handler(handle func(req *http.Request, m Message) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, "POST a webhook", http.StatusMethodNotAllowed)
			return
		}
		m, err := r.Verify(req)
		switch {
		case errors.Is(err, ErrTooLarge):
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		case errors.Is(err, ErrUnsigned), errors.Is(err, ErrTimestamp), errors.Is(err, ErrSignature):
			http.Error(w, err.Error(), http.StatusUnauthorized)
		case err != nil:
			http.Error(w, "the body could not be read", http.StatusBadRequest)
		default:
			req.Body = io.NopCloser(bytes.NewReader(m.Body))
			if handle(req, m) != nil {
				http.Error(w, "try again", http.StatusInternalServerError)
				return
			}
			w.WriteHeader(http.StatusNoContent)
		}
	})
}

// Event reads the message's CloudEvent, in either mode, given the request's
// headers. Returns a [*jetstream.InvalidError].
func (m Message) Event(header http.Header) (cloudevent.Event, error) {
	return cloudevent.Read(header.Get("Content-Type"), header.Get, m.Body)
}
