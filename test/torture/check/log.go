package check

import "strings"

// Complaint tells a line of a server's log which says that it cannot read, or go on
// with, what it has written.
func Complaint(line string) bool {
	for _, text := range []string{
		"Critical write error", "Error preparing WAL replay", "Failed to flush pending data",
	} {
		if strings.Contains(line, text) {
			return true
		}
	}
	return false
}
