package aggregate

import "time"

// SetClock replaces the repository's clock.
func (r *Repository[S]) SetClock(now func() time.Time) { r.core.now = now }
