package cli

import (
	"fmt"
	"strings"
	"time"
)

// formatSize writes a size for people: 1.5 MiB.
func formatSize(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, u := float64(n)/1024, 0
	for f >= 999.5 && u < len(units)-1 {
		f, u = f/1024, u+1
	}
	if f < 9.95 {
		return fmt.Sprintf("%.1f %ciB", f, units[u])
	}
	return fmt.Sprintf("%.0f %ciB", f, units[u])
}

// formatRate writes bytes per second for people: 12.3 MB/s, 4.2 kB/s.
func formatRate(n int64) string {
	switch {
	case n >= 100_000:
		return fmt.Sprintf("%.1f MB/s", float64(n)/1e6)
	case n >= 100:
		return fmt.Sprintf("%.1f kB/s", float64(n)/1e3)
	}
	return fmt.Sprintf("%d B/s", n)
}

// formatDuration writes a duration for people: 0.42 s, 12.3 s, 3m05s.
func formatDuration(d time.Duration) string {
	switch {
	case d < 0:
		return "0.00 s"
	case d < 10*time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}

// formatLeft writes how long something will take, in steps that an estimate deserves: 8s, 1m20s, 2h10m.
func formatLeft(d time.Duration) string {
	switch {
	case d < time.Second:
		return "1s"
	case d < time.Minute:
		return d.Round(time.Second).String()
	case d < 10*time.Minute:
		return d.Round(5 * time.Second).String()
	case d < time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	case d < 48*time.Hour:
		return strings.TrimSuffix(d.Round(10*time.Minute).String(), "0s")
	}
	return fmt.Sprintf("%dd", int(d.Round(24*time.Hour).Hours()/24))
}

// formatAge writes how long ago something was: 12s, 5m, 3h, 2d.
func formatAge(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := max(now.Sub(t), 0)
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
