package jetstream

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxDecisions is the most decisions that one commit holds.
const MaxDecisions = 16384

// maxToken bounds the ids and texts that stand in headers beside event names.
const maxToken = 256

// validate refuses what could be stored but not be read again, or not be read as
// what it was: the format is for ever, so a malformed commit would be, too.
func (w *Write) validate() error {
	if err := firstError(w.After.validate(), w.Expect.validate(w), w.validateKeys()); err != nil {
		return err
	}
	if n := len(w.Decisions); n == 0 || n > MaxDecisions {
		return &InvalidError{
			Field: "decisions", Value: strconv.Itoa(n),
			Reason: fmt.Sprintf("is their number: a commit holds 1 to %d", MaxDecisions),
		}
	}
	if w.TraceParent != "" && !token(w.TraceParent) {
		return &InvalidError{Field: "traceparent", Value: w.TraceParent, Reason: reasonToken}
	}
	if w.Origin != nil && !token(w.Origin.Store) {
		return &InvalidError{Field: "origin store", Value: w.Origin.Store, Reason: reasonToken}
	}
	if w.Origin != nil && (w.Origin.Time.UTC().Year() < 0 || w.Origin.Time.UTC().Year() > 9999) {
		return &InvalidError{
			Field: "origin time", Value: w.Origin.Time.String(),
			Reason: "is not in the years 0 to 9999, which can be read again",
		}
	}
	for i := range w.Decisions {
		if err := w.Decisions[i].validate(); err != nil {
			return err
		}
	}
	if s := w.State; s != nil {
		return firstError(
			validText("state fingerprint", s.Fingerprint), validText("state key reference", s.KeyRef),
			validCodec("state codec", s.Codec))
	}
	return nil
}

// validate refuses heads that no commit can have: they would break the chain.
func (h Head) validate() error {
	first := h.Sequence == 0
	switch {
	case first != (h.CommitID == ""), first != (h.Ordinal == 0), first && h.Version != 0:
		return &InvalidError{
			Field: "head", Value: fmt.Sprintf("%+v", h),
			Reason: "is neither empty nor complete; pass a Head as Append or a commit gave it",
		}
	case !first && (!token(h.CommitID) || strings.Contains(h.CommitID, ".")):
		return &InvalidError{Field: "commit id", Value: h.CommitID, Reason: reasonToken + " other than '.'"}
	}
	return nil
}

func (d *Decision) validate() error {
	err := firstError(
		validText("command id", d.CommandID), validText("rejection code", d.Code),
		validText("correlation", d.Correlation), validText("causation", d.Causation),
		validText("traceparent", d.TraceParent), validText("trigger's subscriber", d.Trigger.Subscriber),
		validText("trigger's event id", d.Trigger.EventID), validText("trigger's step", d.Trigger.Step))
	if err != nil {
		return err
	}
	for k, v := range d.Metadata {
		if err := firstError(validText("metadata key", k), validText("metadata", v)); err != nil {
			return err
		}
	}
	switch {
	case d.Kind > KindTrigger:
		return &InvalidError{Field: "decision kind", Value: strconv.Itoa(int(d.Kind)), Reason: "is not known"}
	case d.Kind == KindTrigger && (d.Trigger.Subscriber == "" || d.Trigger.EventID == ""):
		return &InvalidError{
			Field: "trigger", Value: fmt.Sprintf("%+v", d.Trigger), Reason: "lacks its subscriber or its event id",
		}
	case d.Kind == KindTrigger && d.CommandID != "":
		return &InvalidError{Field: "command id", Value: d.CommandID, Reason: "stands on a trigger, whose key is another"}
	case d.Kind == KindCommand && d.Trigger != Trigger{}:
		return &InvalidError{Field: "trigger", Value: fmt.Sprintf("%+v", d.Trigger), Reason: "stands on a command: set Kind"}
	case d.Outcome > OutcomeRejected:
		return &InvalidError{Field: "outcome", Value: strconv.Itoa(int(d.Outcome)), Reason: "is not known"}
	case (d.Outcome == OutcomeEvents) != (len(d.Events) > 0):
		return &InvalidError{
			Field: "outcome", Value: strconv.Itoa(int(d.Outcome)),
			Reason: fmt.Sprintf("does not fit %d events: OutcomeEvents has some, the others have none", len(d.Events)),
		}
	}
	for i := range d.Events {
		e := &d.Events[i]
		err := firstError(
			validateWireName(e.Name), validCodec("event codec", e.Codec), validText("event key reference", e.KeyRef))
		if err != nil {
			return err
		}
		if e.Version < 0 || e.Version > math.MaxInt32 {
			return &InvalidError{Field: "event version", Value: strconv.Itoa(e.Version), Reason: "is not a version"}
		}
	}
	return nil
}

const reasonToken = "is not 1 to 256 printable ASCII characters without blanks"

// token tells whether the text can stand in a header beside others.
func token(text string) bool {
	if text == "" || len(text) > maxToken {
		return false
	}
	for i := range len(text) {
		if text[i] <= ' ' || text[i] > '~' {
			return false
		}
	}
	return true
}

// validText refuses what no msgpack or JSON string can hold.
func validText(field, text string) error {
	if utf8.ValidString(text) {
		return nil
	}
	return &InvalidError{Field: field, Value: text, Reason: "is not UTF-8"}
}

func validCodec(field string, c Codec) error {
	if c.Valid() {
		return nil
	}
	return &InvalidError{Field: field, Value: c.String(), Reason: "is not known"}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
