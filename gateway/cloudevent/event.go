// Package cloudevent writes events as CloudEvents (https://cloudevents.io, version
// 1.0), and reads them again: as one JSON document, the structured mode, or as the
// event's JSON with attributes in headers, the binary mode. HTTP and NATS have the
// same names for both.
package cloudevent

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/jetstream"
)

// ContentType is that of the structured mode.
const ContentType = "application/cloudevents+json"

// specVersion is the only one there is.
const specVersion = "1.0"

// Event is a CloudEvent as gateways send it. Its JSON is the structured mode.
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
	// Correlation and Causation are those of the event, TraceParent its W3C trace
	// context.
	Correlation string `json:"correlationid,omitempty"`
	Causation   string `json:"causationid,omitempty"`
	TraceParent string `json:"traceparent,omitempty"`
	// Data is the event itself.
	Data json.RawMessage `json:"data"`
}

// New makes the CloudEvent of a delivery. The source defaults to "/" and the
// store's name; the type is the prefix, the aggregate type, a dot, and the event's
// name. It fails for an event that is no JSON.
func New(event any, d gateway.Delivery, source, typePrefix string) (Event, error) {
	data, err := jetstream.JSON.Encode(event)
	if err != nil {
		return Event{}, fmt.Errorf("event %s as JSON: %w", d.EventID, err)
	}
	if source == "" {
		source = "/" + d.Store
	}
	return Event{
		SpecVersion: specVersion, ID: d.EventID, Source: source, Type: typePrefix + d.Type + "." + d.Name,
		Subject: d.ID, Time: d.Time.UTC(), DataContentType: "application/json", Version: d.Version,
		Correlation: d.Correlation, Causation: d.Causation, TraceParent: d.TraceParent, Data: data,
	}, nil
}

// WriteHeaders gives each attribute's header of the binary mode, whose body is
// Data and whose Content-Type is DataContentType.
func (e Event) WriteHeaders(set func(name, value string)) {
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
			set("ce-"+a.name, Escape(a.value))
		}
	}
}

// Read reads an event in either mode, which the content type tells; get returns a
// header by its name, "" when there is none. Returns a [*jetstream.InvalidError].
func Read(contentType string, get func(name string) string, body []byte) (Event, error) {
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return Event{}, &jetstream.InvalidError{Field: "Content-Type", Value: contentType, Reason: "is not a media type"}
	}
	var e Event
	if media == ContentType {
		if err := json.Unmarshal(body, &e); err != nil {
			return Event{}, &jetstream.InvalidError{
				Field: "body", Value: strings.ToValidUTF8(string(body), "?"), Reason: "is not a CloudEvent: " + err.Error(),
			}
		}
	} else if e, err = fromHeaders(contentType, get, body); err != nil {
		return Event{}, err
	}
	if e.SpecVersion != specVersion || e.ID == "" || e.Source == "" || e.Type == "" {
		return Event{}, &jetstream.InvalidError{
			Field: "CloudEvent", Value: e.ID, Reason: "lacks specversion 1.0, id, source or type",
		}
	}
	return e, nil
}

// fromHeaders reads the binary mode.
func fromHeaders(contentType string, get func(name string) string, body []byte) (Event, error) {
	e := Event{DataContentType: contentType, Data: body}
	var version, at string
	for name, to := range map[string]*string{
		"specversion": &e.SpecVersion, "id": &e.ID, "source": &e.Source, "type": &e.Type, "subject": &e.Subject,
		"time": &at, "aggregateversion": &version, "correlationid": &e.Correlation, "causationid": &e.Causation,
		"traceparent": &e.TraceParent,
	} {
		text := get("ce-" + name)
		plain, err := url.PathUnescape(text)
		if err != nil {
			return Event{}, &jetstream.InvalidError{Field: "ce-" + name, Value: text, Reason: "is not percent-encoded"}
		}
		*to = plain
	}
	var err error
	if at != "" {
		if e.Time, err = time.Parse(time.RFC3339Nano, at); err != nil {
			return Event{}, &jetstream.InvalidError{Field: "ce-time", Value: at, Reason: "is not a time"}
		}
	}
	if version != "" {
		if e.Version, err = strconv.ParseUint(version, 10, 64); err != nil {
			return Event{}, &jetstream.InvalidError{Field: "ce-aggregateversion", Value: version, Reason: "is not a version"}
		}
	}
	return e, nil
}

// Escape is CloudEvents' percent-encoding of header values: all but printable
// ASCII, and the double quote and the percent sign.
func Escape(text string) string {
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
