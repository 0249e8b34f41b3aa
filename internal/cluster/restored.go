package cluster

// Restored makes dataDir that of a server of a cluster with settings: its flags need not repeat them.
func Restored(dataDir string, settings map[string]string) error {
	if _, err := ParseAgentSettings(settings); err != nil {
		return err
	}
	m := &Membership{Settings: settings, path: membershipPath(dataDir)}
	return m.save()
}
