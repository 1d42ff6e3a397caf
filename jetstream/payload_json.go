package jetstream

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"github.com/rossby-go/rossby/internal/codec"
)

// jsonCommit mirrors the msgpack payload; docs/format.md describes both at once.
type jsonCommit struct {
	Decisions []jsonDecision `json:"d"`
	State     *jsonState     `json:"s,omitempty"`
}

type jsonDecision struct {
	Kind        Kind              `json:"k,omitempty"`
	ID          string            `json:"i,omitempty"`
	Event       string            `json:"e,omitempty"`
	Step        string            `json:"p,omitempty"`
	Hash        []byte            `json:"h,omitempty"`
	Outcome     Outcome           `json:"o,omitempty"`
	Code        string            `json:"c,omitempty"`
	Reason      string            `json:"m,omitempty"`
	Time        int64             `json:"t,omitempty"`
	Correlation string            `json:"co,omitempty"`
	Causation   string            `json:"ca,omitempty"`
	Trace       string            `json:"tp,omitempty"`
	Metadata    map[string]string `json:"md,omitempty"`
	Events      []jsonEvent       `json:"ev,omitempty"`
}

type jsonEvent struct {
	Name    string `json:"n"`
	Version int    `json:"v,omitempty"`
	jsonData
}

type jsonState struct {
	Fingerprint string `json:"f"`
	jsonData
}

// jsonData holds JSON data as it is and any other as base64.
type jsonData struct {
	Codec  string          `json:"c,omitempty"`
	KeyRef string          `json:"y,omitempty"`
	Data   json.RawMessage `json:"d,omitempty"`
	Binary []byte          `json:"b,omitempty"`
}

func toJSONData(cdc Codec, keyRef string, data []byte) jsonData {
	if cdc == JSON && keyRef == "" {
		return jsonData{Data: data}
	}
	d := jsonData{KeyRef: keyRef, Binary: data}
	if cdc != JSON {
		d.Codec = cdc.String()
	}
	return d
}

func (d jsonData) parts() (Codec, string, []byte, error) {
	cdc := JSON
	if d.Data != nil && d.Binary != nil {
		return 0, "", nil, errors.New("data stands there twice, as \"d\" and as \"b\"")
	}
	if d.Codec != "" {
		var err error
		if cdc, err = codec.Parse(d.Codec); err != nil {
			return 0, "", nil, err
		}
	}
	if d.Data != nil {
		return cdc, d.KeyRef, d.Data, nil
	}
	return cdc, d.KeyRef, d.Binary, nil
}

func encodeJSON(c *Commit) ([]byte, error) {
	out := jsonCommit{Decisions: make([]jsonDecision, 0, len(c.Decisions))}
	for i := range c.Decisions {
		d := &c.Decisions[i]
		j := jsonDecision{
			Kind: d.Kind, ID: d.CommandID, Hash: d.BodyHash,
			Outcome: d.Outcome, Code: d.Code, Reason: d.Reason, Time: micros(d.Time), Correlation: d.Correlation,
			Causation: d.Causation, Trace: d.TraceParent, Metadata: d.Metadata,
		}
		if d.Kind == KindTrigger {
			j.ID, j.Event, j.Step = d.Trigger.Subscriber, d.Trigger.EventID, d.Trigger.Step
		}
		for _, e := range d.Events {
			je := jsonEvent{Name: e.Name, jsonData: toJSONData(e.Codec, e.KeyRef, e.Data)}
			if e.Version > 1 {
				je.Version = e.Version
			}
			j.Events = append(j.Events, je)
		}
		out.Decisions = append(out.Decisions, j)
	}
	if s := c.State; s != nil {
		out.State = &jsonState{Fingerprint: s.Fingerprint, jsonData: toJSONData(s.Codec, s.KeyRef, s.Data)}
	}
	data, err := codec.MarshalJSON(out)
	if err != nil {
		return nil, &InvalidError{Field: "commit", Value: c.ID, Reason: "cannot be written as JSON: " + err.Error()}
	}
	return data, nil
}

func decodeJSON(data []byte, c *Commit) error {
	// The decisions are counted before they are read: each needs a hundred times
	// the memory of its shortest text.
	var in struct {
		Decisions []json.RawMessage `json:"d"`
		State     *jsonState        `json:"s"`
	}
	if err := json.Unmarshal(data, &in); err != nil {
		return err
	}
	if len(in.Decisions) > MaxDecisions {
		return errTooManyDecisions
	}
	left := len(c.EventNames)
	for _, text := range in.Decisions {
		var j jsonDecision
		if err := json.Unmarshal(text, &j); err != nil {
			return err
		}
		if left -= len(j.Events); left < 0 {
			return errTooManyEvents
		}
		d := Decision{
			Kind: j.Kind, CommandID: j.ID, BodyHash: j.Hash, Outcome: j.Outcome, Code: j.Code, Reason: j.Reason,
			Time: fromMicros(j.Time), Correlation: j.Correlation, Causation: j.Causation, TraceParent: j.Trace,
			Metadata: j.Metadata,
		}
		if d.Kind == KindTrigger {
			d.CommandID, d.Trigger = "", Trigger{Subscriber: j.ID, EventID: j.Event, Step: j.Step}
		}
		for _, je := range j.Events {
			e := EventData{Name: je.Name, Version: je.Version}
			var err error
			switch {
			case e.Version == 0:
				e.Version = 1
			case e.Version < 0 || e.Version > math.MaxInt32:
				return fmt.Errorf("%w: event version %d", codec.ErrMalformed, e.Version)
			}
			if e.Codec, e.KeyRef, e.Data, err = je.parts(); err != nil {
				return err
			}
			d.Events = append(d.Events, e)
		}
		c.Decisions = append(c.Decisions, d)
	}
	if in.State != nil {
		c.State = &State{Fingerprint: in.State.Fingerprint}
		var err error
		if c.State.Codec, c.State.KeyRef, c.State.Data, err = in.State.parts(); err != nil {
			return err
		}
	}
	return checkPayload(c, nil)
}
