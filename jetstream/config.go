package jetstream

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"
)

// Defaults of [Config].
const (
	PartitionsDefault     = 64
	MaxConsumersDefault   = 10_000
	AttemptTimeoutDefault = 2 * time.Second
	AppendTimeoutDefault  = 30 * time.Second
)

// OldestServer is the oldest nats-server that Rossby works with.
const OldestServer = "2.14.0"

// Config describes a store. Only Name is required.
type Config struct {
	// Name is the store's name, [a-z0-9-]+, which is also its stream's and begins
	// its subjects.
	Name string
	// Replicas is the number of servers that keep the stream: 1, 3 or 5. Defaults
	// to 1 when the store is made, and to what is there when it exists.
	Replicas int
	// Partitions is the number of partitions that subjects are spread over. It is
	// fixed for ever when the store is made. Defaults to [PartitionsDefault].
	Partitions int
	// Codec writes events and state. It is fixed when the store is made. Defaults
	// to [Msgpack].
	Codec Codec
	// MaxConsumers bounds the stream's consumers: followers, and anybody else's.
	// Defaults to [MaxConsumersDefault].
	MaxConsumers int
	// AttemptTimeout bounds one attempt to append or read. Defaults to
	// [AttemptTimeoutDefault].
	AttemptTimeout time.Duration
	// AppendTimeout bounds appends whose context has no deadline. Defaults to
	// [AppendTimeoutDefault].
	AppendTimeout time.Duration
}

// Validate reports every field that [Open] would refuse, joined.
func (c Config) Validate() error {
	errs := []error{ValidateName("store name", c.Name)}
	if c.Replicas != 0 && c.Replicas != 1 && c.Replicas != 3 && c.Replicas != 5 {
		errs = append(errs, &InvalidError{Field: "Replicas", Value: strconv.Itoa(c.Replicas), Reason: "is not 1, 3 or 5"})
	}
	if c.Partitions < 0 || c.Partitions > 1<<16 {
		errs = append(errs, &InvalidError{
			Field: "Partitions", Value: strconv.Itoa(c.Partitions), Reason: "is not between 1 and 65536",
		})
	}
	if !c.Codec.Valid() {
		errs = append(errs, &InvalidError{Field: "Codec", Value: c.Codec.String(), Reason: "is not known"})
	}
	if c.MaxConsumers < 0 {
		errs = append(errs, &InvalidError{Field: "MaxConsumers", Value: strconv.Itoa(c.MaxConsumers), Reason: "is negative"})
	}
	if c.AttemptTimeout < 0 {
		errs = append(errs, &InvalidError{Field: "AttemptTimeout", Value: c.AttemptTimeout.String(), Reason: "is negative"})
	}
	if c.AppendTimeout < 0 {
		errs = append(errs, &InvalidError{Field: "AppendTimeout", Value: c.AppendTimeout.String(), Reason: "is negative"})
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	c.MaxConsumers = cmp.Or(c.MaxConsumers, MaxConsumersDefault)
	c.AttemptTimeout = cmp.Or(c.AttemptTimeout, AttemptTimeoutDefault)
	c.AppendTimeout = cmp.Or(c.AppendTimeout, AppendTimeoutDefault)
	return c
}

// streamConfig is the stream of a new store. Nothing in it may ever drop,
// replace or delay a message.
func streamConfig(c Config, g genesis) natsjs.StreamConfig {
	return natsjs.StreamConfig{
		Name:               c.Name,
		Description:        "Rossby event store",
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
		Compression:        natsjs.S2Compression,
		Metadata:           g.metadata(),
	}
}

// checkStream compares a live stream with what keeps commits safe.
func checkStream(c Config, live natsjs.StreamConfig) error {
	var errs []error
	fault := func(field, want, got, advice string) {
		errs = append(errs, &SettingsError{Store: c.Name, Field: field, Want: want, Got: got, Advice: advice})
	}
	must := func(ok bool, field string, want, got any, advice string) {
		if !ok {
			fault(field, fmt.Sprint(want), fmt.Sprint(got), advice)
		}
	}
	subject := c.Name + ".event.>"
	const edit = "correct it with `nats stream edit`"
	const made = "it cannot be changed: copy the events into a store of another name"
	must(len(live.Subjects) == 1 && live.Subjects[0] == subject, "subjects", subject, live.Subjects,
		"another stream has this name; choose another store name")
	must(live.Retention == natsjs.LimitsPolicy, "retention", natsjs.LimitsPolicy, live.Retention, made)
	must(live.Discard == natsjs.DiscardNew, "discard", natsjs.DiscardNew, live.Discard, edit)
	must(live.Storage == natsjs.FileStorage, "storage", natsjs.FileStorage, live.Storage, made)
	must(live.MaxMsgs <= 0, "max_msgs", -1, live.MaxMsgs, edit)
	must(live.MaxBytes <= 0, "max_bytes", -1, live.MaxBytes, edit)
	must(live.MaxMsgsPerSubject <= 0, "max_msgs_per_subject", -1, live.MaxMsgsPerSubject, edit)
	must(live.MaxAge == 0, "max_age", 0, live.MaxAge, edit)
	must(live.DenyDelete, "deny_delete", true, live.DenyDelete, edit)
	must(live.DenyPurge, "deny_purge", true, live.DenyPurge, edit)
	must(!live.AllowRollup, "allow_rollup", false, live.AllowRollup, edit)
	must(!live.AllowMsgCounter, "allow_msg_counter", false, live.AllowMsgCounter, made)
	must(!live.AllowMsgTTL, "allow_msg_ttl", false, live.AllowMsgTTL, made)
	must(live.AllowDirect, "allow_direct", true, live.AllowDirect, edit)
	must(live.AllowAtomicPublish, "allow_atomic", true, live.AllowAtomicPublish, edit)
	must(!live.NoAck, "no_ack", false, live.NoAck, edit)
	must(!live.Sealed, "sealed", false, live.Sealed, made)
	must(live.Mirror == nil && len(live.Sources) == 0, "mirror/sources", "none", "set", edit)
	must(live.SubjectTransform == nil, "subject_transform", "none", "set", edit)
	must(live.PersistMode == natsjs.DefaultPersistMode, "persist_mode", natsjs.DefaultPersistMode, live.PersistMode, made)
	must(c.Replicas == 0 || c.Replicas == live.Replicas, "num_replicas", c.Replicas, live.Replicas,
		"change Replicas in the program, or the stream with `nats stream edit --replicas`")
	return errors.Join(errs...)
}
