package race
