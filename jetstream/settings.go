package jetstream

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	natsjs "github.com/nats-io/nats.go/jetstream"
)

const streamDescription = "Rossby event store"

// streamConfig is the stream of a new store. Nothing in it may ever drop,
// replace or delay a message.
func streamConfig(c Config, g genesis) natsjs.StreamConfig {
	return natsjs.StreamConfig{
		Name:               c.Name,
		Description:        streamDescription,
		Subjects:           []string{c.Name + ".event.>"},
		Retention:          natsjs.LimitsPolicy,
		Discard:            natsjs.DiscardNew,
		MaxConsumers:       c.MaxConsumers,
		MaxMsgs:            -1,
		MaxBytes:           -1,
		MaxMsgSize:         -1,
		MaxMsgsPerSubject:  -1,
		Storage:            natsjs.FileStorage,
		Replicas:           max(c.Replicas, 1),
		DenyDelete:         true,
		DenyPurge:          true,
		AllowDirect:        true,
		AllowAtomicPublish: true,
		// A replica that replays its log after a restart may compress the block that it
		// goes on to write to, which no later start can read (2.15.2).
		Compression: natsjs.NoCompression,
		Metadata:    g.metadata(),
	}
}

// setting is one field of a live stream beside what a store wants of it.
type setting struct {
	field     string
	want, got any
	ok        bool
	// harmless tells that a store with another value opens all the same.
	harmless bool
	// repair sets the field, nil when that cannot be done or would lose data.
	repair func(*natsjs.StreamConfig)
	// advice is what to do where there is no repair, why what a repair does.
	advice, why string
}

// dropped is the reason of repairs that come late for what is gone.
const dropped = "stops the loss of commits; what the setting has dropped stays lost: verify the store"

// settings compares a live stream with what keeps commits safe, and with what the
// program asks for.
func settings(c Config, live natsjs.StreamConfig) []setting {
	var all []setting
	is := func(ok bool, field string, want, got any) *setting {
		all = append(all, setting{field: field, want: want, got: got, ok: ok})
		return &all[len(all)-1]
	}
	fixed := func(ok bool, field string, want, got any) {
		is(ok, field, want, got).advice = "it cannot be changed: copy the events into a store of another name"
	}
	edit := func(ok bool, field string, want, got any, why string, repair func(*natsjs.StreamConfig)) *setting {
		s := is(ok, field, want, got)
		s.advice = "correct it with jetstream.PlanMigration, or with `nats stream edit`"
		s.why, s.repair = why, repair
		return s
	}
	person := func(ok bool, field string, want, got any, advice string) { is(ok, field, want, got).advice = advice }

	subject := c.Name + ".event.>"
	person(len(live.Subjects) == 1 && live.Subjects[0] == subject, "subjects", subject, live.Subjects,
		"another stream has this name, or this one takes other messages, too: choose another store name, "+
			"or remove the other subjects with `nats stream edit` if they are not used")
	fixed(live.Retention == natsjs.LimitsPolicy, "retention", natsjs.LimitsPolicy, live.Retention)
	fixed(live.Storage == natsjs.FileStorage, "storage", natsjs.FileStorage, live.Storage)
	fixed(live.PersistMode == natsjs.DefaultPersistMode, "persist_mode", natsjs.DefaultPersistMode, live.PersistMode)
	fixed(!live.AllowMsgCounter, "allow_msg_counter", false, live.AllowMsgCounter)
	fixed(!live.AllowMsgTTL, "allow_msg_ttl", false, live.AllowMsgTTL)
	fixed(live.SubjectDeleteMarkerTTL == 0, "subject_delete_marker_ttl", 0, live.SubjectDeleteMarkerTTL)
	fixed(!live.AllowMsgSchedules, "allow_msg_schedules", false, live.AllowMsgSchedules)
	fixed(!live.Sealed, "sealed", false, live.Sealed)
	person(live.Mirror == nil && len(live.Sources) == 0, "mirror/sources", "none", origins(live),
		"commits come from elsewhere past every expectation: take them out with `nats stream edit`, then verify the store")
	person(live.SubjectTransform == nil, "subject_transform", "none", "set",
		"commits are stored under other subjects: take it out with `nats stream edit`, then verify the store")

	edit(live.Discard == natsjs.DiscardNew, "discard", natsjs.DiscardNew, live.Discard, dropped,
		func(s *natsjs.StreamConfig) { s.Discard = natsjs.DiscardNew })
	edit(live.MaxMsgs <= 0, "max_msgs", -1, live.MaxMsgs, dropped, func(s *natsjs.StreamConfig) { s.MaxMsgs = -1 })
	edit(live.MaxBytes <= 0, "max_bytes", -1, live.MaxBytes, dropped, func(s *natsjs.StreamConfig) { s.MaxBytes = -1 })
	edit(live.MaxAge == 0, "max_age", 0, live.MaxAge, dropped, func(s *natsjs.StreamConfig) { s.MaxAge = 0 })
	edit(live.MaxMsgsPerSubject <= 0 && !live.DiscardNewPerSubject, "max_msgs_per_subject", -1, live.MaxMsgsPerSubject,
		dropped, func(s *natsjs.StreamConfig) { s.MaxMsgsPerSubject, s.DiscardNewPerSubject = -1, false })
	edit(live.DenyDelete, "deny_delete", true, live.DenyDelete, "nobody can delete single commits any more",
		func(s *natsjs.StreamConfig) { s.DenyDelete = true })
	edit(live.DenyPurge, "deny_purge", true, live.DenyPurge, "nobody can purge commits any more",
		func(s *natsjs.StreamConfig) { s.DenyPurge = true })
	edit(!live.AllowRollup, "allow_rollup", false, live.AllowRollup, "no message can replace others any more",
		func(s *natsjs.StreamConfig) { s.AllowRollup = false })
	edit(live.AllowDirect, "allow_direct", true, live.AllowDirect, "Rossby reads with direct gets",
		func(s *natsjs.StreamConfig) { s.AllowDirect = true })
	edit(live.AllowAtomicPublish, "allow_atomic", true, live.AllowAtomicPublish, "transactions are atomic batches",
		func(s *natsjs.StreamConfig) { s.AllowAtomicPublish = true })
	edit(!live.NoAck, "no_ack", false, live.NoAck, "appends wait for acknowledgements",
		func(s *natsjs.StreamConfig) { s.NoAck = false })
	edit(c.Replicas == 0 || c.Replicas == live.Replicas, "num_replicas", c.Replicas, live.Replicas,
		replicasWhy(live.Replicas, c.Replicas), func(s *natsjs.StreamConfig) { s.Replicas = c.Replicas }).
		advice = "change Replicas in the program, or the stream with jetstream.PlanMigration or `nats stream edit --replicas`"
	edit(c.MaxConsumers == 0 || c.MaxConsumers == live.MaxConsumers, "max_consumers", c.MaxConsumers, live.MaxConsumers,
		"bounds followers only; no commit is touched", func(s *natsjs.StreamConfig) { s.MaxConsumers = c.MaxConsumers })

	edit(live.MaxMsgSize <= 0, "max_msg_size", -1, live.MaxMsgSize, "larger commits are accepted, none is touched",
		func(s *natsjs.StreamConfig) { s.MaxMsgSize = -1 }).harmless = true
	edit(live.Description == streamDescription, "description", streamDescription, live.Description,
		"is for people only", func(s *natsjs.StreamConfig) { s.Description = streamDescription }).harmless = true
	edit(live.Compression == natsjs.NoCompression, "compression", natsjs.NoCompression, live.Compression,
		"no restart can damage the newest block any more, once each server has been restarted; those there stay readable",
		func(s *natsjs.StreamConfig) { s.Compression = natsjs.NoCompression }).harmless = true
	return all
}

func replicasWhy(from, to int) string {
	if to < from {
		return "every commit stays, on fewer servers: the loss of one of them loses more"
	}
	return "the servers that come in copy every commit before they count"
}

func origins(live natsjs.StreamConfig) string {
	var names []string
	if live.Mirror != nil {
		names = append(names, live.Mirror.Name)
	}
	for _, s := range live.Sources {
		names = append(names, s.Name)
	}
	return strings.Join(names, ", ")
}

func (s *setting) err(store string) error {
	return &SettingsError{
		Store: store, Field: s.field, Want: fmt.Sprint(s.want), Got: fmt.Sprint(s.got), Advice: s.advice,
	}
}

// checkStream refuses streams that could lose commits, and those that are not
// what the program asks for. It names every difference.
func checkStream(c Config, live natsjs.StreamConfig) error {
	var errs []error
	for _, s := range settings(c, live) {
		if !s.ok && !s.harmless {
			errs = append(errs, s.err(c.Name))
		}
	}
	return errors.Join(errs...)
}

// repaired is the stream with the settings set that can be.
func repaired(live natsjs.StreamConfig, all []setting) natsjs.StreamConfig {
	live.Subjects = slices.Clone(live.Subjects)
	for _, s := range all {
		if !s.ok && s.repair != nil {
			s.repair(&live)
		}
	}
	return live
}
