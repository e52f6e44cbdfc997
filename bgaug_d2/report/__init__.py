"""What a person looks at afterwards: tables of runs and a gallery of painted pictures."""
