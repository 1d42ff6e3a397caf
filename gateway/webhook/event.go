package webhook

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/jetstream"
)

// Event is a CloudEvent of this package, in the structured mode. A receiver may
// decode a body into it.
type Event struct {
	SpecVersion string `json:"specversion"`
	// ID is the event's, the same in every store it is copied to.
	ID string `json:"id"`
	// Source and Type say which store it is of, and what happened.
	Source string `json:"source"`
	Type   string `json:"type"`
	// Subject is the aggregate's id.
	Subject string `json:"subject"`
	// Time is when it was decided.
	Time            time.Time `json:"time"`
	DataContentType string    `json:"datacontenttype"`
	// Version is the aggregate's version with this event: within one subject, it
	// tells the order.
	Version uint64 `json:"aggregateversion"`
	// Correlation and Causation are those of the event.
	Correlation string `json:"correlationid,omitempty"`
	Causation   string `json:"causationid,omitempty"`
	TraceParent string `json:"traceparent,omitempty"`
	// Data is the event itself.
	Data json.RawMessage `json:"data"`
}

// event writes down what is sent.
func (h *Hook) event(e any, d gateway.Delivery) (Event, error) {
	data, err := jetstream.JSON.Encode(e)
	if err != nil {
		return Event{}, fmt.Errorf("webhook: event %s as JSON: %w", d.EventID, err)
	}
	source := h.cfg.Source
	if source == "" {
		source = "/" + d.Store
	}
	return Event{
		SpecVersion: "1.0", ID: d.EventID, Source: source, Type: h.cfg.TypePrefix + d.Type + "." + d.Name,
		Subject: d.ID, Time: d.Time.UTC(), DataContentType: "application/json", Version: d.Version,
		Correlation: d.Correlation, Causation: d.Causation, TraceParent: d.TraceParent, Data: data,
	}, nil
}

// write gives body and headers in the mode.
func (e Event) write(mode Mode, header http.Header) ([]byte, error) {
	if mode == Structured {
		header.Set("Content-Type", "application/cloudevents+json; charset=utf-8")
		return json.Marshal(e)
	}
	header.Set("Content-Type", e.DataContentType)
	for _, a := range []struct{ name, value string }{
		{"specversion", e.SpecVersion},
		{"id", e.ID},
		{"source", e.Source},
		{"type", e.Type},
		{"subject", e.Subject},
		{"time", e.Time.Format(time.RFC3339Nano)},
		{"aggregateversion", strconv.FormatUint(e.Version, 10)},
		{"correlationid", e.Correlation},
		{"causationid", e.Causation},
		{"traceparent", e.TraceParent},
	} {
		if a.value != "" {
			header.Set("ce-"+a.name, escape(a.value))
		}
	}
	return e.Data, nil
}

// escape is CloudEvents' percent-encoding of header values: all but printable
// ASCII, and the double quote and the percent sign.
func escape(text string) string {
	var b strings.Builder
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c > '~' || c == '"' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// unescape reads what escape wrote.
func unescape(text string) (string, error) { return url.PathUnescape(text) }
