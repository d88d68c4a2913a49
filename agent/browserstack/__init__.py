"""BrowserStack App Automate: its API, and the way by which tests reach its devices."""
