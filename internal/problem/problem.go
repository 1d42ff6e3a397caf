// Package problem answers HTTP requests with problems as RFC 9457 has them.
package problem

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/rossby-go/rossby/internal/codec"
)

// ContentType is that of a problem.
const ContentType = "application/problem+json"

// maxValue bounds what is told of a bad value.
const maxValue = 256

// Error is what went wrong.
type Error struct {
	Status int
	// Kind ends the problem's type, Detail is for people.
	Kind, Detail string
	// Members are what the kind names beside.
	Members map[string]any
	// Retry is when to try again; 0 is never.
	Retry time.Duration
}

// Of makes a problem.
func Of(status int, kind, detail string) *Error {
	return &Error{Status: status, Kind: kind, Detail: detail}
}

// Again lets the caller try again, and returns the problem.
func (p *Error) Again(after time.Duration) *Error {
	p.Retry = after
	return p
}

// With adds a member, and returns the problem.
func (p *Error) With(name string, value any) *Error {
	if p.Members == nil {
		p.Members = map[string]any{}
	}
	p.Members[name] = value
	return p
}

// Error names kind and detail.
func (p *Error) Error() string { return p.Kind + ": " + p.Detail }

// Value is as much of a bad value as is told.
func Value(text string) string {
	if len(text) > maxValue {
		return strings.ToValidUTF8(text[:maxValue], "") + "…"
	}
	return text
}

// Write answers with the problem. The base begins its type.
func (p *Error) Write(w http.ResponseWriter, r *http.Request, base string) {
	instance, _, _ := strings.Cut(r.RequestURI, "?")
	body := map[string]any{
		"type": base + p.Kind, "title": http.StatusText(p.Status), "status": p.Status,
		"detail": p.Detail, "instance": instance,
	}
	for name, value := range p.Members {
		if _, taken := body[name]; !taken {
			body[name] = value
		}
	}
	if p.Retry > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(p.Retry.Seconds()))))
	}
	data, err := codec.MarshalJSON(body)
	if err != nil { // a member that is no JSON
		http.Error(w, p.Detail, p.Status)
		return
	}
	w.Header().Set("Content-Type", ContentType)
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(data, '\n'))
}
