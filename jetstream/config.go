package jetstream

import (
	"cmp"
	"errors"
	"strconv"
	"time"
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
	// Defaults to [MaxConsumersDefault] when the store is made, and to what is there
	// when it exists.
	MaxConsumers int
	// AttemptTimeout bounds one attempt to append or read. Defaults to
	// [AttemptTimeoutDefault].
	AttemptTimeout time.Duration
	// AppendTimeout bounds appends whose context has no deadline. Defaults to
	// [AppendTimeoutDefault].
	AppendTimeout time.Duration
	// RequireDurability is the least that must be certain of what the servers do for
	// a commit. [Open] returns a [*DurabilityError] when they do less, and when that
	// is not known: "fsynced" needs DurabilitySources. Defaults to no requirement.
	RequireDurability DurabilityLevel
	// DurabilitySources are where RequireDurability learns more than a plain client
	// is told.
	DurabilitySources DurabilitySources
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
	if c.RequireDurability > DurabilityFsynced {
		errs = append(errs, &InvalidError{
			Field: "RequireDurability", Value: c.RequireDurability.String(), Reason: "is not known",
		})
	}
	return errors.Join(append(errs, c.DurabilitySources.validate())...)
}

func (c Config) withDefaults() Config {
	c.MaxConsumers = cmp.Or(c.MaxConsumers, MaxConsumersDefault)
	c.AttemptTimeout = cmp.Or(c.AttemptTimeout, AttemptTimeoutDefault)
	c.AppendTimeout = cmp.Or(c.AppendTimeout, AppendTimeoutDefault)
	return c
}
